import pytest
import torch
from torch import nn

from dblr_plugin.archs import DBLRDiscriminator


def small(**kwargs) -> DBLRDiscriminator:
    torch.manual_seed(0)
    return DBLRDiscriminator(**{'num_feat': 8, 'num_fc': 16, **kwargs})


def test_layers():
    net = DBLRDiscriminator(num_fc=32)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64] * 2 + [128] * 3 + [256] * 4 + [512] * 5
    assert [i for i, c in enumerate(convs) if c.stride == (2, 2)] == [1, 4, 8, 13]  # the last of each stage
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) == 3


@pytest.mark.parametrize('size', [(16, 16), (17, 40), (64, 48)])
@pytest.mark.parametrize('channels', [1, 3])
def test_any_patch(size, channels):
    assert small(num_in_ch=channels)(torch.rand(2, channels, *size)).shape == (2, 1)


@pytest.mark.parametrize('size', [(15, 64), (64, 15), (1, 1)])
def test_too_small_patch(size):
    with pytest.raises(ValueError, match='at least 16x16.*gt_size'):
        small()(torch.rand(2, 1, *size))


def test_gradients_reach_all_parameters_and_the_patch():
    net = small(negative_slope=0.2)
    patch = torch.rand(4, 1, 32, 32, requires_grad=True)
    net(patch).square().sum().backward()
    assert patch.grad.abs().sum() > 0
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_learns_to_tell_sharp_from_blurry():
    net = small(negative_slope=0.2)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(25):
        sharp = torch.rand(8, 1, 32, 32)
        blurry = nn.functional.avg_pool2d(sharp, 3, 1, 1)
        logits = net(torch.cat([sharp, blurry]))
        target = torch.cat([torch.ones(8, 1), torch.zeros(8, 1)])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((logits > 0) == (target > 0)).float().mean() == 1
