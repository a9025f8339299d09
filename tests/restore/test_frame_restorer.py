"""Frames are padded and converted for the network; tiles give the result of whole frames and shrink to fit memory."""

import logging

import pytest
import torch
from basicsr.archs.edvr_arch import EDVR
from basicsr.utils import tensor2img
from hypothesis import given, settings
from hypothesis import strategies as st
from reach import measured_radius
from torch import nn

from dblr_plugin.archs import DBN, BlurryInput, DBLRNet, DeepDeblur, FourierBurstAccumulation, MultiScaleDBLRNet
from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.colour import rgb_to_y, to_network_colour
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.frame_restorer import (
    INEXACT_RADIUS,
    SMALLEST_TILE,
    FrameRestorer,
    SelfEnsemble,
    TiledForward,
    build_restorer,
    halo_of,
)


def traits(channels: int) -> NetworkTraits:
    return NetworkTraits(channels, num_frame=5, restores=2, flow=False)


class NeedsMultiples(nn.Module):
    """Returns the middle frame; h and w must be multiples of 16."""

    def forward(self, x):
        assert x.shape[-2] % 16 == 0 and x.shape[-1] % 16 == 0
        return x[:, 2]


@pytest.mark.parametrize('channels', [1, 3])
def test_identity_network_returns_the_same_frame(channels):
    picture = torch.randint(0, 256, (1, 5, 3, 21, 34), generator=torch.Generator().manual_seed(0))
    restored = FrameRestorer(BlurryInput(channels), traits(channels))(picture / 255)
    assert (tensor2img(restored, rgb2bgr=False) == picture[0, 2].permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize('size', [(16, 32), (1, 1), (17, 31), (45, 80)])
@pytest.mark.parametrize('channels', [1, 3])
def test_frames_are_padded_and_cropped_back(size, channels):
    window = torch.rand(2, 5, 3, *size)
    assert torch.equal(FrameRestorer(NeedsMultiples(), traits(channels), size_multiple=16)(window), window[:, 2])


def test_y_network_keeps_the_chroma_of_the_blurry_frame():
    class Brighter(nn.Module):
        def forward(self, x):
            return x[:, 2] + 0.1

    window = torch.rand(1, 5, 3, 8, 8)
    change = FrameRestorer(Brighter(), traits(1))(window) - window[:, 2]
    # a change of only Y adds the same value to all channels
    torch.testing.assert_close(change, torch.full_like(change, 0.1 * 255 / 219))


@pytest.mark.parametrize('tile', [0, 16])
def test_super_resolution_network_is_refused(tile):
    """Otherwise its upper left corner would be used as the frame."""
    tiled = TiledForward(lambda x: nn.functional.interpolate(x[:, 2], scale_factor=4), 4, tile)
    with pytest.raises(DBLRError, match=r'the network returns \(1, 3, \d+, \d+\), not \(1, 3, \d+, \d+\)'):
        FrameRestorer(tiled, traits(3))(torch.rand(1, 5, 3, 32, 48))


def test_network_that_returns_more_than_a_tensor_is_refused():
    class WithFlow(nn.Module):
        def forward(self, x):
            return x[:, 2], x

    restore = build_restorer(WithFlow(), traits(3), torch.device('cpu'), backend='torch', precision='fp32')
    with pytest.raises(DBLRError, match='the network returns a tuple; let its forward return the restored tensor'):
        restore(torch.rand(1, 5, 3, 8, 8))


def test_frames_are_converted_to_the_channels_of_the_network():
    rgb = torch.rand(2, 5, 3, 8, 9)
    y = rgb_to_y(rgb)
    assert to_network_colour(rgb, 3) is rgb and to_network_colour(y, 1) is y
    assert torch.equal(to_network_colour(rgb, 1), y)
    with pytest.raises(DBLRError, match='network_g takes 3 channels; remove y_only, or set num_in_ch: 1'):
        to_network_colour(y, 3)


class Mixes(nn.Module):
    """Mixes a window's frames with weights that have no symmetry; returns all frames, or one."""

    def __init__(self, restores_all: bool) -> None:
        super().__init__()
        self.restores_all = restores_all
        torch.manual_seed(0)
        self.layer = nn.Conv3d(1, 1, 3, 1, 1)

    def forward(self, x):
        mixed = self.layer(x.transpose(1, 2)).transpose(1, 2)
        return mixed if self.restores_all else mixed[:, 2]


class TestSelfEnsemble:
    @pytest.mark.parametrize('restores_all', [False, True])
    @pytest.mark.parametrize('reverse', [False, True])
    @torch.no_grad()
    def test_result_is_the_mean_over_flips(self, restores_all, reverse):
        net, window = Mixes(restores_all), torch.rand(1, 5, 1, 9, 14)
        results = []
        for axes, turned in (([], False), ([3], False), ([4], reverse), ([3, 4], reverse)):
            result = net(torch.flip(window, [*axes, 1] if turned else axes))
            result = torch.flip(result, [axis - (not restores_all) for axis in axes])
            results.append(torch.flip(result, [1]) if turned and restores_all else result)
        torch.testing.assert_close(SelfEnsemble(net, reverse)(window), torch.stack(results).mean(0))

    def test_identity_is_bit_identical(self):
        window = torch.rand(1, 5, 1, 33, 47)
        assert torch.equal(SelfEnsemble(BlurryInput(1), reverse=True)(window), window[:, 2])

    @pytest.mark.parametrize('causal', [False, True])
    @torch.no_grad()
    def test_self_ensemble_option_reverses_time_only_if_not_causal(self, causal):
        network = {'type': 'DBLRNet', 'num_feat': 8, 'num_block': 1, 'causal': causal}
        net = DBLRNet(num_feat=8, num_block=1, causal=causal, init_std=0.1).eval()
        settings = {'backend': 'torch', 'precision': 'fp32', 'tile': 32, 'self_ensemble': True}
        restorer = build_restorer(net, NetworkTraits.of(network), torch.device('cpu'), **settings)
        window = torch.rand(1, 5, 1, 100, 90)
        restored = restorer.restore(window, torch.rand(1, 3, 100, 90))
        expected = SelfEnsemble(net, reverse=not causal)(window)
        torch.testing.assert_close(rgb_to_y(restored), expected, atol=1e-4, rtol=0)
        assert not torch.allclose(expected, SelfEnsemble(net, reverse=causal)(window), atol=1e-4)


class Shifts(nn.Module):
    """A fast network with a receptive radius of ``radius`` pixels in each direction that pads frames with zeros."""

    radius = 5

    def forward(self, x):
        middle = x[:, x.shape[1] // 2]
        h, w = middle.shape[-2:]
        r = self.radius
        padded = nn.functional.pad(middle, (r, r, r, r))
        return 2 * padded[..., :h, :w] - padded[..., 2 * r :, 2 * r :] + padded[..., :h, 2 * r :]


class EncoderDecoder(nn.Module):
    """Downscales by 4 and upscales again."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(5, 4, 5, 1, 2), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)]
        layers += [nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x.flatten(1, 2)) + x[:, 2]


@pytest.fixture(scope='module')
def net() -> nn.Module:
    torch.manual_seed(0)
    return DBLRNet(num_feat=16, num_block=1).eval()


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 70), st.integers(1, 70)), st.integers(1, 80), st.integers(5, 9))
def test_tiles_of_any_size_equal_the_whole_frame(size, tile, halo):
    window = torch.rand(1, 3, 1, *size)
    seen = []
    tiled = TiledForward(lambda x: (seen.append(x.shape), Shifts()(x))[1], halo, tile)
    assert torch.equal(tiled(window), Shifts()(window))
    assert len(set(seen)) == 1, 'tiles of different sizes would each have to be compiled'
    assert all(side <= min(whole, tile + 2 * halo) for side, whole in zip(seen[0][-2:], size, strict=True))


def test_tiles_are_as_few_and_as_small_as_possible():
    seen = []
    TiledForward(lambda x: (seen.append(x.shape[-2:]), x[:, 0])[1], 35, 640)(torch.zeros(1, 1, 1, 720, 1280))
    # a halo at one side of each tile; tiles of 640 rows from the top would read 710 rows twice
    assert seen == [(360 + 35, 640 + 35)] * 4


@pytest.mark.parametrize(
    ('size', 'halo', 'tiles'),
    [
        ((540, 960), 35, 1), ((720, 1280), 35, 4), ((720, 1280), 41, 1), ((1080, 1920), 112, 1),
        ((2160, 3840), 112, 6), ((2160, 3840), 256, 1), ((2160, 3840), 35, 24),
    ],
)  # fmt: skip
def test_large_frames_are_tiled_if_the_halo_costs_little(size, halo, tiles):
    seen = []
    TiledForward(lambda x: (seen.append(x), x[:, 0])[1], halo)(torch.zeros(1, 1, 1, *size))
    assert len(seen) == tiles


def test_large_frames_are_not_tiled_if_that_may_change_the_result():
    large = torch.zeros(1).expand(1, 5, 1, 2160, 3840)
    for net, tiled in ((NeedsMultiples(), False), (BlurryInput(1), True)):
        restorer = build_restorer(net, traits(1), torch.device('cpu'), backend='torch')
        assert (restorer.net._tile_of(large) < 3840) == tiled


# larger than the frame, as large as it, with a remainder of one pixel, smaller than the halo
@pytest.mark.parametrize('tile', [0, 100, 48, 47, 24, 16, 7])
@torch.no_grad()
def test_dblrnet_in_tiles_equals_the_whole_frame(net, tile):
    halo = net.receptive_radius
    for size in ((48, 61), (33, 48)):
        window = torch.rand(1, 5, 1, *size)
        torch.testing.assert_close(TiledForward(net, halo, tile)(window), net(window), atol=1e-5, rtol=0)


@torch.no_grad()
def test_smaller_halo_changes_the_result(net):
    window = torch.rand(1, 5, 1, 64, 64)
    halo = net.receptive_radius
    difference = TiledForward(net, halo - 4, 16)(window) - net(window)
    assert difference.abs().max() > 1e-5


@pytest.mark.parametrize('tile', [8, 13, 20])
@torch.no_grad()
def test_strided_network_in_tiles_equals_the_whole_frame(tile):
    torch.manual_seed(0)
    net = EncoderDecoder().eval()
    tiled = TiledForward(net, measured_radius(net, 1, 5, multiple=4), tile, multiple=4)
    for size in ((64, 80), (37, 59)):
        window = torch.rand(1, 5, 3, *size)
        y = window[:, :, :1]
        whole, in_tiles = (
            FrameRestorer(f, NetworkTraits(1, 5, 2, flow=False), 4).restore(y, window[:, 2]) for f in (net, tiled)
        )
        torch.testing.assert_close(in_tiles, whole, atol=1e-5, rtol=0)


def test_frame_whose_sides_are_no_multiples_is_refused():
    with pytest.raises(ValueError, match='multiples of 4'):
        TiledForward(EncoderDecoder(), 8, multiple=4)(torch.rand(1, 5, 1, 30, 32))


class Limited:
    """Runs out of memory on windows of more than ``pixels`` pixels."""

    def __init__(self, pixels: int, error: Exception) -> None:
        self.pixels, self.error, self.calls = pixels, error, []

    def __call__(self, x):
        self.calls.append(x.shape[-2] * x.shape[-1])
        if self.calls[-1] > self.pixels:
            raise self.error
        return Shifts()(x)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError('CUDA out of memory'),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError('std::bad_alloc'),
    RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
    RuntimeError('MPS backend out of memory (MPS allocated: 9.00 GB)'),
    MemoryError(),
]


@pytest.mark.parametrize('error', OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_out_of_memory_leads_to_smaller_tiles(error, caplog):
    limited = Limited(100 * 100, error)
    tiled = TiledForward(limited, Shifts.radius)
    window = torch.rand(1, 3, 1, 128, 200)
    assert torch.equal(tiled(window), Shifts()(window))
    assert tiled.tile == 100
    limited.calls.clear()
    assert torch.equal(tiled(window), Shifts()(window))
    assert max(limited.calls) <= limited.pixels, 'what was too much is not tried again'
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ['Memory does not suffice for whole frames; frames are restored in smaller tiles.']


def test_out_of_memory_at_the_smallest_tile_and_other_errors_are_raised():
    limited = Limited(0, MemoryError('none left'))
    with pytest.raises(MemoryError, match='none left'):
        TiledForward(limited, 5)(torch.rand(1, 3, 1, 200, 300))
    assert 0.9 * (SMALLEST_TILE + 10) ** 2 < limited.calls[-1] <= (SMALLEST_TILE + 10) ** 2
    other = Limited(0, RuntimeError('shapes differ'))
    with pytest.raises(RuntimeError, match='shapes differ'):
        TiledForward(other, 5)(torch.rand(1, 3, 1, 200, 300))
    assert len(other.calls) == 1


@pytest.mark.parametrize(
    ('net', 'num_in_ch', 'num_frame', 'multiple'),
    [
        (BlurryInput(3), 3, 5, 4),
        (DBLRNet(num_feat=16, num_block=2, groups=4, num_frame=7), 1, 7, 1),
        (DBLRNet(3, 3, num_feat=16, num_block=1, tail_conv=False, input_skip=True), 3, 5, 1),
        (DBLRNet(num_feat=16), 1, 5, 1),
        (MultiScaleDBLRNet(num_feat=(8, 8, 8)), 1, 5, 8),
        (MultiScaleDBLRNet(num_feat=(4, 4, 4, 4), num_block=(2, 1, 0, 3)), 1, 5, 16),
        (DBN(num_feat=4), 3, 5, 8),
        (DeepDeblur(num_feat=4, num_block=1), 3, 1, 4),
        (DeepDeblur(num_feat=4, num_block=2, gaussian=True), 3, 1, 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_receptive_radius_of_the_class_equals_the_measured_one(net, num_in_ch, num_frame, multiple):
    assert halo_of(net) == net.receptive_radius == measured_radius(net, num_in_ch, num_frame, multiple)


def test_receptive_radius_of_the_paper_is_35():
    # two 3D layers, two in each of 14 blocks, two in the tail, three in the reconstruction; num_feat has no influence
    assert DBLRNet(num_feat=16).receptive_radius == 35


def test_halo_without_a_radius_or_with_a_large_one_is_inexact():
    assert halo_of(FourierBurstAccumulation()) == INEXACT_RADIUS
    assert halo_of(EDVR(num_feat=16, num_reconstruct_block=1, deformable_groups=2)) == INEXACT_RADIUS
    assert halo_of(DeepDeblur(num_feat=4)) == INEXACT_RADIUS


@pytest.mark.parametrize('backend', ['torch', 'openvino'])
def test_network_may_change_its_input(backend, caplog):
    """Tiles share their margins, and OpenVINO's result is compared with torch's for the same window."""
    if backend == 'openvino':
        pytest.importorskip('openvino')

    class InPlace(nn.Module):
        receptive_radius = 2

        def forward(self, x):
            x -= 0.25
            return x[:, 2]

    window = torch.rand(1, 5, 3, 90, 90)
    restorer = build_restorer(InPlace(), traits(3), torch.device('cpu'), backend=backend, precision='fp32', tile=32)
    torch.testing.assert_close(restorer(window.clone()), window[:, 2] - 0.25)
    assert not caplog.text
