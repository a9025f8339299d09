"""Each way of running a network faster against the plain one, for every network of the benchmark; memory kept."""

import copy
import platform
import resource
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.edvr_arch import EDVR
from processes import warm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations

from dblr_plugin.acceleration import (
    StackedConv,
    autocast,
    fold,
    keep_freed_memory,
    prepare_network,
    share_batch_statistics,
)
from dblr_plugin.archs import DBN, BlurryInput, DBLRNet
from dblr_plugin.archs.dblrnet_arch import TimeStackedConv

CPU = torch.device('cpu')
WINDOW, FRAME = (2, 5, 1, 32, 32), (2, 3, 128, 128)
NETWORKS = {
    'DBLRNet': ({'num_feat': 16, 'num_block': 2}, WINDOW),
    'EDVR': (
        {'num_feat': 16, 'deformable_groups': 2, 'num_extract_block': 1, 'num_reconstruct_block': 1, 'hr_in': True,
         'with_predeblur': True},
        (2, 5, 3, 32, 32),
    ),
    'DBLRDiscriminator': ({'num_in_ch': 3, 'num_feat': 8, 'num_fc': 32, 'negative_slope': 0.2}, FRAME),
    'VGGStyleDiscriminator': ({'num_in_ch': 3, 'num_feat': 8}, FRAME),
    'UNetDiscriminatorSN': ({'num_in_ch': 3, 'num_feat': 8}, FRAME),
}  # fmt: skip


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return build_network({'type': name, **copy.deepcopy(NETWORKS[name][0]), **options})


def gradients(net: nn.Module, name: str, amp: str | None = None) -> dict[str, torch.Tensor]:
    """The gradients of a loss on a random batch, by weight."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(NETWORKS[name][1], generator=generator)
    with autocast(CPU, amp):
        output = net(inputs).float()
    (output - torch.rand(output.shape, generator=generator)).square().mean().backward()
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


def assert_equal_to_rounding(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """In float32; a bias in front of BatchNorm has no gradient but rounding, and is measured against the others."""
    assert expected.keys() == found.keys()
    scale = max(gradient.norm() for gradient in expected.values())
    for weight, gradient in expected.items():
        assert (found[weight] - gradient).norm() < 1e-2 * gradient.norm() + 1e-5 * scale, weight


@pytest.mark.parametrize('name', NETWORKS)
def test_channels_last_is_the_same_network(name):
    plain, fast = build(name), build(name)
    names = list(fast.state_dict())
    prepare_network(fast, channels_last=True)
    assert list(fast.state_dict()) == names
    assert any(p.dim() == 4 and not p.is_contiguous() for p in fast.parameters())
    assert_equal_to_rounding(gradients(plain, name), gradients(fast, name))


@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.slow
def test_mixed_precision_has_the_gradients_of_fp32(name, amp):
    plain, mixed = build(name), build(name)
    prepare_network(mixed, channels_last=True)
    expected, found = gradients(plain, name), gradients(mixed, name, amp)
    whole = [torch.cat([g[k].flatten() for k in expected]) for g in (expected, found)]
    assert all(torch.isfinite(g).all() for g in found.values())
    assert cosine(*whole) > 0.98  # wrong kernels, as Conv3d's on CPUs with AMX, come out near 0
    for weight, gradient in expected.items():
        if gradient.dim() > 1 and gradient.norm() > 1e-3 * whole[0].norm():
            assert cosine(gradient, found[weight]) > 0.9, weight


def test_deformable_convolution_stays_in_fp32():
    """Its offsets are pixels, for which bf16's 8 bits are too coarse, and there is no bf16 kernel on CPUs."""
    net = build('EDVR')
    prepare_network(net)
    seen = []
    for name, module in net.named_modules():
        if name.endswith('dcn_pack.l1'):
            module.conv_offset.register_forward_hook(lambda m, inputs, output: seen.append(output.dtype))
    gradients(net, 'EDVR', 'bf16')
    assert seen and set(seen) == {torch.float32}


def test_copies_of_deformable_convolution_call_their_own():
    """A restorer keeps its weights while training goes on."""
    net = build('EDVR')
    prepare_network(net)
    copied, window = fold(net), torch.rand(NETWORKS['EDVR'][1])
    with torch.no_grad():
        expected = copied(window)
        for parameter in net.parameters():
            parameter.zero_()
        assert torch.equal(copied(window), expected)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'options', 'backend'), [
    ('DBLRNet', {'num_feat': 8, 'num_block': 0, 'tail_conv': False, 'groups': 8}, 'inductor'),
    ('DBLRDiscriminator', {}, 'aot_eager'),
])  # fmt: skip
def test_compiled_is_the_same_network(name, options, backend, monkeypatch):
    """Kernels are built for the layers that are ours alone: those of whole networks take minutes."""
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend=backend))
    plain, fast = build(name, **options), build(name, **options)
    prepare_network(fast, compiled=True)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert_equal_to_rounding(gradients(plain, name), gradients(fast, name))


class TestSharedBatchStatistics:
    """``train.sync_bn``; what SyncBatchNorm computes among GPUs is torch's own."""

    @pytest.mark.parametrize('name', ['DBLRNet', 'DBLRDiscriminator'])
    def test_every_batchnorm_is_converted_and_keeps_what_it_holds(self, name):
        net = build(name)
        gradients(net, name)  # statistics have moved
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
        plain = {k: v.clone() for k, v in net.state_dict().items()}
        expected = net.eval()(torch.ones(NETWORKS[name][1]))
        converted = share_batch_statistics(net, 'cuda', 2)
        kinds = [type(m) for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert kinds == [nn.SyncBatchNorm] * norms and norms > 0
        assert converted.state_dict().keys() == plain.keys()
        assert all(torch.equal(v, plain[k]) for k, v in converted.state_dict().items())
        assert torch.equal(converted.eval()(torch.ones(NETWORKS[name][1])), expected)

    @pytest.mark.parametrize(('device', 'processes', 'reason'), [
        ('cpu', 2, 'torch cannot do it on the CPU'), ('cuda', 1, 'one process trains'),
    ])  # fmt: skip
    def test_elsewhere_the_network_stays_and_the_log_says_why(self, caplog, device, processes, reason):
        net = build('DBLRNet')
        assert share_batch_statistics(net, device, processes) is net
        assert not any(isinstance(m, nn.SyncBatchNorm) for m in net.modules())
        assert f'train.sync_bn changes nothing: {reason}' in caplog.text


def count_faults() -> tuple[int, int]:
    """Pages that ten large arrays need, before and after memory is kept; the setting stays in its process."""

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            np.empty(48 << 20, np.uint8).fill(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    first = faults()
    keep_freed_memory()
    faults()
    return first, faults()


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='other C libraries have no such setting')
def test_freed_memory_is_not_new_memory():
    with ProcessPoolExecutor(1, mp_context=warm()) as pool:
        before, after = pool.submit(count_faults).result()
    assert after < before / 10


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


FOLDED = {
    'paper': lambda: DBLRNet(num_feat=16, num_block=2),
    'no tail': lambda: DBLRNet(num_feat=16, num_block=1, tail_conv=False, groups=4),
    'single': lambda: DBLRNet(num_feat=16, num_block=1, single=True),
    'encoder and decoder': EncoderDecoder,
    'DBN': lambda: DBN(num_in_ch=1, num_out_ch=1, num_feat=4),
}


@pytest.mark.parametrize('build', FOLDED.values(), ids=FOLDED)
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


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_a_network_of_another_type_is_folded_to_float32(dtype):
    net = DBLRNet(num_feat=16, num_block=1).to(dtype)
    assert fold(net)(WINDOW).dtype == torch.float32 and next(net.parameters()).dtype == dtype


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


@pytest.mark.filterwarnings('ignore:.*weight_norm. is deprecated')
@pytest.mark.parametrize('norm', ['utils.weight_norm', 'utils.spectral_norm', 'weight_norm', 'spectral_norm'])
def test_computed_weights_are_folded_as_plain_ones(norm):
    """A network with such layers could not be copied, nor BatchNorm be folded into them: its validation failed."""
    norm = getattr(nn.utils if norm.startswith('utils.') else parametrizations, norm.removeprefix('utils.'))
    net = nn.Sequential(norm(nn.Conv2d(1, 4, 3)), nn.BatchNorm2d(4), nn.ReLU(), norm(nn.Conv2d(4, 1, 3)))
    x = torch.rand(1, 1, 9, 9)
    with_statistics(net.train())(x)
    folded = fold(net)
    torch.testing.assert_close(folded(x), net(x))
    assert {*folded.state_dict()} == {'0.weight', '0.bias', '3.weight', '3.bias'}
    torch.testing.assert_close(fold(net)(x), net(x))  # the network itself is as before
    assert not any(parameter.requires_grad for parameter in folded.parameters())


class Skipped(nn.Sequential):
    """Its layers are not called one directly after the other."""

    def forward(self, x):
        return self[1](x + self[0](x))


def test_batch_norm_that_cannot_be_folded_stays():
    relu = nn.ReLU()
    # without running statistics it depends on the picture; behind an activation no convolution is there to take it
    for layers in (
        [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)],
        [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
        [nn.Conv2d(1, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.BatchNorm2d(4)],
        [nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)],
        Skipped(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
    ):
        net = layers if isinstance(layers, Skipped) else nn.Sequential(*layers)
        net = with_statistics(net) if layers[-1].track_running_stats else net
        x = torch.rand(1, layers[0].in_channels, 9, 9)
        torch.testing.assert_close(fold(net)(x), net.eval()(x))
        assert isinstance(fold(net)[-1], nn.BatchNorm2d)
