"""Rates and times of their own for parts of a network, on EDVR, whose recipe needs them."""

import pytest
import torch
from basicsr.archs.edvr_arch import EDVR
from basicsr.models.edvr_model import EDVRModel
from basicsr.models.video_base_model import VideoBaseModel
from torch import nn

from dblr_plugin.training.optimizers import multiply_rates, train_alone


def build() -> nn.Module:
    return EDVR(num_feat=8, deformable_groups=1, num_extract_block=1, num_reconstruct_block=1)


class TestMultiplyRates:
    def test_each_parameter_is_in_one_group_at_its_rate(self):
        net = build()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        multiply_rates(optimizer, net, {'dcn': 0.25, 'fusion': 2, 'pcd_align': 3})
        rates = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
        assert len(rates) == sum(len(group['params']) for group in optimizer.param_groups)
        for name, parameter in net.named_parameters():
            # those of pcd_align that are called dcn have been taken by the first
            factor = next((f for part, f in (('dcn', 0.25), ('fusion', 2), ('pcd_align', 3)) if part in name), 1)
            assert rates[id(parameter)] == pytest.approx(1e-3 * factor), name

    def test_schedulers_keep_the_ratio(self):
        net = build()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        multiply_rates(optimizer, net, {'dcn': 0.25})
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], 0.1)
        optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == pytest.approx([1e-4, 0.25e-4])


@pytest.mark.parametrize(('iteration', 'parts'), [
    (1, ('fusion', 'conv_last')), (2, ('fusion',)), (4, ('fusion',)), (5, ('',)), (6, ('',)),
])  # fmt: skip
def test_parts_are_trained_alone_before_an_iteration(iteration, parts):
    net = build()
    train_alone(net, {'fusion': 5, 'conv_last': 2}, iteration)
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == any(part in name for part in parts), name


def test_everything_is_trained_from_basicsrs_tsa_iter_on(monkeypatch):
    """Which parameters BasicSR's own model trains in each iteration."""
    monkeypatch.setattr(VideoBaseModel, 'optimize_parameters', lambda self, current_iter: None)
    theirs = EDVRModel.__new__(EDVRModel)
    theirs.net_g, theirs.train_tsa_iter = build(), 3
    ours = build()
    for iteration in range(1, 6):
        theirs.optimize_parameters(iteration)
        train_alone(ours, {'fusion': 3}, iteration)
        trained = [{n for n, p in net.named_parameters() if p.requires_grad} for net in (theirs.net_g, ours)]
        assert trained[0] == trained[1], iteration
