"""Properties of every network that restores frames."""

import inspect
from functools import partial

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from networks import build_trained
from torch import nn
from torch.nn import functional as F

from dblr_plugin.acceleration import autocast, prepare_network
from dblr_plugin.archs import DBN, BlurryInput, DBLRNet, DeepDeblur, FourierBurstAccumulation, MultiScaleDBLRNet

small_dblrnet = partial(DBLRNet, num_feat=16, num_block=1)
small_dbn = partial(DBN, num_feat=4)
small_multi_scale = partial(MultiScaleDBLRNet, num_feat=[8, 12], num_block=[1, 1])
small_deepdeblur = partial(DeepDeblur, num_feat=4, num_block=1)
NETWORKS = {
    'DBLRNet': small_dblrnet,
    'DBLRNet RGB': partial(small_dblrnet, num_in_ch=3, num_out_ch=3, num_frame=3),
    'DBLRNet groups': partial(small_dblrnet, num_frame=7, groups=16),
    'DBLRNet single': partial(small_dblrnet, single=True),
    'DBLRNet causal': partial(small_dblrnet, causal=True),
    'DBN': small_dbn,
    'DBN Y': partial(small_dbn, num_in_ch=1, num_out_ch=1, num_frame=3),
    'DBN single': partial(small_dbn, single=True),
    'DBN causal': partial(small_dbn, causal=True),
    'DBN simdeblur': partial(small_dbn, simdeblur=True),
    'DBN input_skip': partial(small_dbn, input_skip=True),
    'DeepDeblur': small_deepdeblur,
    'DeepDeblur gaussian': partial(small_deepdeblur, gaussian=True),
    'DeepDeblur Y in windows': partial(small_deepdeblur, num_in_ch=1, num_out_ch=1, num_frame=5),
    'FourierBurstAccumulation': FourierBurstAccumulation,
    'BlurryInput': BlurryInput,
    'MultiScaleDBLRNet': small_multi_scale,
    'MultiScaleDBLRNet RGB causal': partial(small_multi_scale, num_in_ch=3, num_out_ch=3, num_frame=3, causal=True),
}
# frames of a window that are used, for networks that do not use all
SEEN = {
    'DBLRNet single': [2], 'DBN single': [2], 'DeepDeblur': [0], 'DeepDeblur gaussian': [0],
    'DeepDeblur Y in windows': [2], 'BlurryInput': [2],
}  # fmt: skip

each = pytest.mark.parametrize('name', NETWORKS)


def build(name: str) -> nn.Module:
    return build_trained(NETWORKS[name])


def windows(name: str, batch: int, height: int, width: int) -> torch.Tensor:
    arguments = inspect.signature(NETWORKS[name]).parameters
    given = {key: argument.default for key, argument in arguments.items()}
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, given.get('num_frame', 5), given['num_in_ch'], height, width, generator=generator)


def test_all_networks_are_tested():
    ours = {n for n, cls in ARCH_REGISTRY if cls.__module__.startswith('dblr_plugin.') and 'Discriminator' not in n}
    assert ours == {name.split()[0] for name in NETWORKS} | {'MiddleFrame'}  # a former name of BlurryInput


@each
@pytest.mark.parametrize('size', [(1, 1), (7, 13), (16, 24)])
@torch.no_grad()
def test_output_has_the_size_of_the_input_and_is_repeatable(name, size):
    net, x = build(name), windows(name, 2, *size)
    before = x.clone()
    restored = net(x)
    assert restored.shape == (2, *x.shape[2:]) and restored.dtype == x.dtype and restored.isfinite().all()
    assert torch.equal(x, before) and torch.equal(net(x), restored)


@each
@torch.no_grad()
def test_windows_of_a_batch_are_independent(name):
    net, x = build(name), windows(name, 3, 9, 14)
    torch.testing.assert_close(net(x), torch.cat([net(window[None]) for window in x]))


@each
@torch.no_grad()
def test_padding_replicates_the_border(name):
    net, x = build(name), windows(name, 1, 13, 21)
    multiple = getattr(net, 'size_multiple', 1)
    padded = F.pad(x, (0, -21 % multiple, 0, -13 % multiple, 0, 0), mode='replicate')
    torch.testing.assert_close(net(padded)[..., :13, :21], net(x))


@each
def test_gradients_reach_every_weight_and_used_frame(name):
    net, x = build(name).train(), windows(name, 2, 16, 16).requires_grad_()
    net(x).square().mean().backward()
    for weight, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), weight
        if parameter.dim() > 1:  # a bias before BatchNorm has no gradient
            assert parameter.grad.abs().sum() > 0, weight
    seen = x.grad.abs().sum(dim=(0, 2, 3, 4)).nonzero().flatten().tolist()
    assert seen == SEEN.get(name, list(range(x.shape[1])))


@each
@torch.no_grad()
def test_float64_and_mixed_precision_agree_with_float32(name):
    net, x = build(name), windows(name, 1, 16, 24)
    expected = net(x)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(net(x).float(), expected, atol=0.05, rtol=0)
    precise = net.double()(x.double())
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise.float(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', ['DBN', 'DeepDeblur'])
def test_mixed_precision_gradients_are_close_to_float32(name):
    """BatchNorm is frozen: with batch statistics, DBN is so sensitive that float32 is 1 % from float64."""
    fast = build(name)
    prepare_network(fast, channels_last=True)
    gradients = []
    for net, amp in ((build(name), None), (fast, 'bf16')):
        with autocast(torch.device('cpu'), amp):
            restored = net(windows(name, 2, 32, 32))
        restored.float().sub(0.3).square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.999
