"""The plateau schedule, and learning rates and start iterations for parts of a network, as EDVR's recipe needs."""

import pytest
import torch
from basicsr.archs.edvr_arch import EDVR
from basicsr.models.edvr_model import EDVRModel
from basicsr.models.video_base_model import VideoBaseModel
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dblr_plugin.training.objectives import generator_logits
from dblr_plugin.training.step import PlateauLR, multiply_rates, train_alone, trainable


def optimizer(lr: float = 1e-4) -> torch.optim.Adam:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler: PlateauLR, losses: list[float]) -> list[float]:
    """Returns the learning rate of each iteration, in BasicSR's order of calls."""
    used = []
    for iteration, loss in enumerate(losses):
        if iteration:
            scheduler.step()
        used.append(scheduler.optimizer.param_groups[0]['lr'])
        scheduler.record(loss)
    return used


def test_rate_falls_once_the_mean_loss_stops_falling():
    losses = [1.0, 3.0] * 5 + [0.5, 1.5] * 5 + [0.9, 1.1] * 40  # windows of 10: means 2, 1, then always 1
    used = rates(PlateauLR(optimizer(), window=10, patience=2), losses)
    assert used[:40] == [1e-4] * 40  # two windows without a better mean end with the fourth
    assert used[40:60] == [pytest.approx(1e-5)] * 20
    assert used[60] == pytest.approx(1e-6)


def test_plateaus_of_negative_losses_are_found():
    """PSNRLoss is negative; torch's relative threshold would take a slightly worse mean for a new best."""
    used = rates(
        PlateauLR(optimizer(), window=2, patience=2, threshold=0.01), [-20.0, -22.0, -30.0, -30.0] + [-29.9] * 8
    )
    assert used[:8] == [1e-4] * 8
    assert used[8] == pytest.approx(1e-5)


def test_noise_between_batches_is_no_plateau():
    generator = torch.Generator().manual_seed(0)
    falling = [1 / (1 + i / 100) * (0.5 + float(torch.rand((), generator=generator))) for i in range(600)]
    assert set(rates(PlateauLR(optimizer(), window=100, patience=1), falling)) == {1e-4}


def test_rates_equal_torchs_for_the_mean_losses():
    means = [float(m) for m in torch.rand(40, generator=torch.Generator().manual_seed(1)) + 1]
    twice = [mean for mean in means for _ in range(2)]
    ours = rates(PlateauLR(optimizer(), factor=0.5, window=2, patience=3, min_lr=1e-6), twice)
    reference = ReduceLROnPlateau(optimizer(), factor=0.5, patience=2, threshold=1e-3, min_lr=1e-6)
    for index, mean in enumerate(means[:-1]):
        reference.step(mean)
        assert ours[2 * (index + 1)] == reference.optimizer.param_groups[0]['lr']


def test_schedule_resumes_within_a_window():
    losses = [2.0] * 13 + [1.0] * 30
    whole = rates(PlateauLR(optimizer(), window=10, patience=1), losses)
    first = PlateauLR(optimizer(), window=10, patience=1)
    rates(first, losses[:13])
    second = PlateauLR(optimizer(), window=10, patience=1)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.step()
    assert rates(second, losses[13:]) == whole[13:]


def test_non_finite_losses_are_ignored():
    used = rates(PlateauLR(optimizer(), window=2, patience=1), [1.0, float('nan'), 0.5, float('inf'), 0.4, 0.3, 0.2])
    assert set(used) == {1e-4}


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
            # parameters of pcd_align with dcn in their name match the first entry
            factor = next((f for part, f in (('dcn', 0.25), ('fusion', 2), ('pcd_align', 3)) if part in name), 1)
            assert rates[id(parameter)] == pytest.approx(1e-3 * factor), name

    def test_schedulers_keep_the_ratio_of_rates(self):
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
    train_alone(trainable(net), {'fusion': 5, 'conv_last': 2}, iteration)
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == any(part in name for part in parts), name


def test_parameters_that_the_network_froze_stay_frozen():
    """lr_mul gave them to the optimiser, and train_only and a GAN's step let them be trained."""
    net = build()
    frozen = {*net.conv_first.requires_grad_(False).parameters()}
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    multiply_rates(optimizer, net, {'dcn': 0.25, 'conv': 0.5})
    assert not frozen & {p for group in optimizer.param_groups for p in group['params']}
    parameters = trainable(net)
    for iteration in (1, 3):
        train_alone(parameters, {'fusion': 3}, iteration)
        assert not any(parameter.requires_grad for parameter in frozen)
    net_d = nn.Sequential(nn.Conv2d(3, 2, 3).requires_grad_(False), nn.Conv2d(2, 1, 3))
    restored = torch.rand(1, 3, 9, 9, requires_grad=True)
    generator_logits(net_d, restored).sum().backward()
    assert [p.requires_grad for p in net_d.parameters()] == [False, False, True, True]
    assert restored.grad.any() and net_d[1].weight.grad is None


def test_train_alone_equals_basicsrs_tsa_iter(monkeypatch):
    """The same parameters are trained as by BasicSR's own model, in each iteration."""
    monkeypatch.setattr(VideoBaseModel, 'optimize_parameters', lambda self, current_iter: None)
    theirs = EDVRModel.__new__(EDVRModel)
    theirs.net_g, theirs.train_tsa_iter = build(), 3
    ours = build()
    parameters = trainable(ours)
    for iteration in range(1, 6):
        theirs.optimize_parameters(iteration)
        train_alone(parameters, {'fusion': 3}, iteration)
        trained = [{n for n, p in net.named_parameters() if p.requires_grad} for net in (theirs.net_g, ours)]
        assert trained[0] == trained[1], iteration
