"""Networks rewritten for inference compute the same."""

import copy

import pytest
import torch
from basicsr.archs.edvr_arch import EDVR
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dblr_plugin.archs import BlurryInput, DBLRNet
from dblr_plugin.archs.dblrnet_arch import TimeStackedConv
from dblr_plugin.restore.folding import StackedConv, fold

WINDOW = torch.rand(1, 5, 1, 24, 20, generator=torch.Generator().manual_seed(0))


def with_statistics(net: nn.Module) -> nn.Module:
    """A network whose BatchNorm layers do something, as after training."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.2, 2, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, -0.9, 0.9, generator)
                nn.init.uniform_(module.bias, -0.3, 0.3, generator)
    return net.eval()


class EncoderDecoder(nn.Module):
    """As DBN has them: strided and transposed convolutions, with and without bias, each with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(5, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.Sequential(
            nn.ConvTranspose2d(8, 8, 4, 2, 1),
            nn.BatchNorm2d(8, affine=False),
            nn.Sequential(nn.ReLU(), nn.Conv2d(8, 1, 3, 1, 1), nn.BatchNorm2d(1)),
        )

    def forward(self, x):
        return self.up(self.down(x.flatten(1, 2))) + x[:, 2]


NETWORKS = {
    'paper': lambda: DBLRNet(num_feat=16, num_block=2),
    'no tail': lambda: DBLRNet(num_feat=16, num_block=1, tail_conv=False, groups=4),
    'single': lambda: DBLRNet(num_feat=16, num_block=1, single=True),
    'encoder and decoder': EncoderDecoder,
}


@pytest.mark.parametrize('build', NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_folded_computes_the_same(build):
    net = with_statistics(build())
    weights = copy.deepcopy(net.state_dict())
    folded = fold(net)
    torch.testing.assert_close(folded(WINDOW), net(WINDOW), atol=1e-5, rtol=0)
    assert torch.equal(fold(folded)(WINDOW), folded(WINDOW))
    assert not any(isinstance(module, _BatchNorm | TimeStackedConv) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


def test_a_network_in_training_is_folded_as_for_inference_and_goes_on_training():
    net = DBLRNet(num_feat=16, num_block=1).train()
    folded = fold(net)
    assert net.training and all(parameter.requires_grad for parameter in net.parameters()) and not folded.training
    with torch.no_grad():
        torch.testing.assert_close(folded(WINDOW), copy.deepcopy(net).eval()(WINDOW), atol=1e-5, rtol=0)


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize(('time', 'kernel'), [(5, 3), (3, 3), (7, 5)])
@torch.no_grad()
def test_stacked_convolution(groups, time, kernel):
    conv = TimeStackedConv(4, 8, kernel, groups)
    x = torch.rand(2, 4, time, 9, 7)
    torch.testing.assert_close(StackedConv(conv, time)(x), conv(x))


def test_networks_without_batch_norm_keep_their_layers():
    for net in (BlurryInput(3), EDVR(num_feat=16, num_extract_block=1, num_reconstruct_block=1, deformable_groups=2)):
        assert [*fold(net).state_dict()] == [*net.state_dict()]


def test_batch_norm_that_cannot_be_folded_stays():
    # without running statistics it depends on the picture; behind an activation no convolution is there to take it
    for layers in (
        [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)],
        [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
    ):
        net = with_statistics(nn.Sequential(*layers)) if layers[-1].track_running_stats else nn.Sequential(*layers)
        x = torch.rand(1, 1, 9, 9)
        torch.testing.assert_close(fold(net)(x), net.eval()(x))
        assert isinstance(fold(net)[-1], nn.BatchNorm2d)
