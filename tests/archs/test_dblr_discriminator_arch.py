"""DBLRDiscriminator: layers, patch sizes, gradients and initialisation."""

import pytest
import torch
from torch import nn

from dblr_plugin.archs import DBLRDiscriminator


def small(**kwargs) -> DBLRDiscriminator:
    torch.manual_seed(0)
    return DBLRDiscriminator(**{'num_feat': 8, 'num_fc': 16, **kwargs})


def test_layers_follow_the_paper():
    net = DBLRDiscriminator(num_fc=32)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64] * 2 + [128] * 3 + [256] * 4 + [512] * 5
    assert [i for i, c in enumerate(convs) if c.stride == (2, 2)] == [1, 4, 8, 13]  # the last of each stage
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) == 3


@pytest.mark.parametrize('size', [(16, 16), (17, 40), (64, 48)])
@pytest.mark.parametrize('channels', [1, 3])
def test_patches_of_any_size_are_accepted(size, channels):
    assert small(num_in_ch=channels)(torch.rand(2, channels, *size)).shape == (2, 1)


@pytest.mark.parametrize('size', [(15, 64), (64, 15), (1, 1)])
def test_too_small_patches_are_refused(size):
    with pytest.raises(ValueError, match='at least 16x16.*gt_size'):
        small()(torch.rand(2, 1, *size))


def test_gradients_reach_all_parameters_and_the_patch():
    net = small(negative_slope=0.2)
    patch = torch.rand(4, 1, 32, 32, requires_grad=True)
    net(patch).square().sum().backward()
    assert patch.grad.abs().sum() > 0
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.slow
def test_learns_to_separate_sharp_from_blurry():
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


def test_published_initialisation():
    net = small(num_fc=64, init_std=0.01)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert not module.bias.any()
            if module.weight.numel() > 1000:
                assert abs(module.weight.std() - 0.01) < 0.001 and abs(module.weight.mean()) < 0.001
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
    assert torch.equal(small(init_std=None).features[0].weight, small().features[0].weight)


@pytest.mark.slow
def test_full_width_gradients_on_published_patch_size():
    """Forward and backward as in the option files: a sharp and a restored patch of 128x128 in one batch."""
    torch.manual_seed(0)
    net = DBLRDiscriminator(num_feat=64, num_fc=4096, negative_slope=0.2)
    patches = torch.rand(2, 1, 128, 128, requires_grad=True)
    logits = net(patches)
    assert logits.shape == (2, 1)
    nn.functional.softplus(torch.stack([-logits[0], logits[1]])).mean().backward()
    assert patches.grad.isfinite().all() and patches.grad.abs().sum() > 0
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name
