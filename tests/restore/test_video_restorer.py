"""``VideoRestorer`` restores clips with the results of validation, whatever the size, tiles and frame type."""

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.utils import tensor2img
from networks import build_trained

from dblr_plugin.archs import DBN, DeepDeblur, FourierBurstAccumulation
from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.data.windows import NEIGHBOURS
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.frame_restorer import FrameRestorer
from dblr_plugin.restore.video_restorer import VideoRestorer

NETWORK = {'type': 'DBLRNet', 'num_feat': 16, 'num_block': 1, 'input_skip': True}
NETWORKS = {'DBN': partial(DBN, num_feat=4), 'DeepDeblur': partial(DeepDeblur, num_feat=4, num_block=1, num_frame=5)}


def network(**changes) -> tuple[torch.nn.Module, dict]:
    options = NETWORK | changes
    torch.manual_seed(0)
    net = build_network(options).eval()
    for parameter in net.reconstruction[-1].parameters():  # initially zero
        torch.nn.init.normal_(parameter, std=0.02)
    return net, options


def plain(net: torch.nn.Module, options: dict, **settings) -> VideoRestorer:
    return VideoRestorer(net, options, device='cpu', backend='torch', precision='fp32', **settings)


def frames(count: int, size: tuple[int, int] = (40, 33), dtype: type = np.uint8) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    still = rng.integers(0, np.iinfo(dtype).max, (*size, 3))
    return [(still * (0.97 + 0.03 * rng.random())).astype(dtype) for _ in range(count)]


def test_restored_frames_equal_those_of_validation(train_options):
    """Only folding the BatchNorms may round differently."""
    net, options = network()
    dataset = build_dataset(train_options['datasets']['val'] | {'phase': 'val', 'scale': 1})
    restore = FrameRestorer(net, NetworkTraits(1, 5, 2, flow=False))
    expected = [tensor2img(restore(dataset[i]['lq'].unsqueeze(0)))[..., ::-1] for i in range(6)]
    clip = [tensor2img(dataset[i]['lq'][2])[..., ::-1].copy() for i in range(6)]
    found = list(plain(net, options).restore(clip))
    assert len(found) == 6
    for one, other, blurry in zip(found, expected, clip, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1 and (one != other).mean() < 1e-3
        assert np.abs(one.astype(int) - blurry).max() > 1


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 3])
def test_identity_network_is_bit_identical(dtype, channels):
    clip = frames(7, dtype=dtype)
    options = {'type': 'BlurryInput', 'num_in_ch': channels}
    found = list(plain(build_network(options), options).restore(clip))
    assert len(found) == 7
    assert all(one.dtype == dtype and np.array_equal(one, other) for one, other in zip(found, clip, strict=True))


@pytest.mark.parametrize('count', [0, 1, 2, 6])
def test_number_of_frames_is_kept(count):
    assert len(list(plain(*network()).restore(frames(count)))) == count


@pytest.mark.parametrize(('spoil', 'found'), [
    (lambda frame: frame / np.float32(255), r'frame 2 is an array \(40, 33, 3\) of float32; give RGB arrays'),
    (lambda frame: frame[..., 0], r'frame 2 is an array \(40, 33\) of uint8'),
    (lambda frame: frame[:, :0], r'frame 2 is an array \(40, 0, 3\) of uint8; give RGB arrays'),
    (lambda frame: frame.transpose(2, 0, 1), r'frame 2 is an array \(3, 40, 33\) of uint8'),
    (torch.from_numpy, 'frame 2 is a Tensor'),
    (lambda frame: frame[1:], r'frame 2 is an array \(39, 33, 3\) .*, unlike frame 0, .* a call of their own'),
    (lambda frame: frame.astype(np.uint16), r'of uint16, unlike frame 0, an array \(40, 33, 3\) of uint8'),
])  # fmt: skip
def test_invalid_frame_is_named(spoil, found):
    clip = frames(4)
    clip[2] = spoil(clip[2])
    with pytest.raises(DBLRError, match=found):
        list(plain(*network()).restore(clip))


def one_buffer(clip: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the frames as some video readers do: all in the same array."""
    buffer = np.empty_like(clip[0])
    for frame in clip:
        buffer[:] = frame
        yield buffer


def read_only(clip: list[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in clip:
        view = frame.view()
        view.flags.writeable = False
        yield view


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('given', [one_buffer, read_only])
@pytest.mark.parametrize('options', [NETWORK, {'type': 'FourierBurstAccumulation', 'flow': True}])
def test_arrays_of_the_caller_may_be_reused_or_read_only(given, options):
    """Colours and aligned frames are computed after later frames have been read."""
    restorer, clip = plain(build_network(options).eval(), options), frames(4)
    for one, other in zip(restorer.restore(given(clip)), list(restorer.restore(clip)), strict=True):
        assert np.array_equal(one, other)


def test_frames_of_another_scene_have_no_influence():
    restorer = plain(*network())
    first, second = frames(5), [255 - frame for frame in frames(5)]
    together = list(restorer.restore([*first, *second]))
    apart = [*restorer.restore(first), *restorer.restore(second)]
    assert all(np.array_equal(one, other) for one, other in zip(together, apart, strict=True))


def test_tiles_equal_whole_frames():
    net, options = network()
    whole, tiled = (list(plain(net, options, tile=tile).restore(frames(3, (70, 90)))) for tile in (0, 16))
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(whole, tiled, strict=True))


@pytest.mark.parametrize('size', [(203, 61), (50, 219)])
@pytest.mark.parametrize('name', NETWORKS)
def test_tiles_of_strided_networks_equal_whole_frames_of_any_size(name, size):
    net, clip = build_trained(NETWORKS[name]), panned(1, size)
    whole, tiled = (list(plain(net, {'type': name}, tile=tile).restore(clip)) for tile in (0, 20))
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1 and (one != other).mean() < 1e-3


def test_causal_network_does_not_depend_on_later_frames():
    restorer = plain(*network(causal=True))
    clip = frames(8)
    assert all(
        np.array_equal(one, other)
        for one, other in zip(restorer.restore(clip), restorer.restore(clip[:5]), strict=False)
    )


@pytest.mark.parametrize(('changes', 'later'), [
    ({'causal': True}, 0),
    ({}, 2 + NEIGHBOURS),
    ({'num_frame': 3}, 1 + NEIGHBOURS),
    ({'type': 'BlurryInput', 'causal': True}, 0),
])  # fmt: skip
def test_frame_waits_only_for_the_later_frames_it_needs(changes, later):
    """Those of its window and those that detect cuts; a causal network returns a frame before it reads the next."""
    options = changes if 'type' in changes else NETWORK | changes
    taken = []
    restored = plain(build_network(options), options).restore(taken.append(i) or f for i, f in enumerate(frames(12)))
    assert [len(taken) for _ in restored] == [min(number + later, 12) for number in range(1, 13)]


def test_causal_edvr_restores_the_last_frame():
    """BasicSR's EDVR is causal by its center_frame_idx."""
    sizes = {'num_feat': 8, 'num_extract_block': 1, 'num_reconstruct_block': 1, 'deformable_groups': 1}
    options = {'type': 'EDVR', 'hr_in': True, 'with_predeblur': True, 'with_tsa': False, 'center_frame_idx': 4, **sizes}
    net = build_network(options)
    for layer in net.modules():  # so that it adds nothing to its frame
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    clip = frames(6, (16, 16))
    restored = plain(net, options).restore(clip)
    assert all(np.array_equal(one, other) for one, other in zip(restored, clip, strict=True))


def panned(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Returns uint8 frames (h, w, 3) of a texture that moves by two pixels per frame."""
    noise = np.random.default_rng(0).random((size[0], size[1] + 2 * count, 3))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return [texture[:, 2 * i : 2 * i + size[1]].copy() for i in range(count)]


class TestFlow:
    OPTIONS = {'type': 'FourierBurstAccumulation', 'p': 0}

    @pytest.mark.parametrize('flow', [True, 'consistent'])
    def test_restored_frames_equal_those_of_validation(self, tmp_path, flow):
        clip = panned(7, (64, 80))
        (tmp_path / 'lq/pan').mkdir(parents=True)
        for i, frame in enumerate(clip):
            assert cv2.imwrite(str(tmp_path / f'lq/pan/{i:08d}.png'), frame[..., ::-1])
        dataset = VideoDeblurTestDataset({'name': 'pan', 'dataroot_lq': str(tmp_path / 'lq'), 'flow': flow})
        net = FourierBurstAccumulation()
        restore = FrameRestorer(net, NetworkTraits(3, 5, 2, flow=False))
        for i, found in enumerate(plain(net, {'type': 'FourierBurstAccumulation', 'flow': flow}).restore(clip)):
            expected = restore(dataset[i]['lq'].unsqueeze(0))[0].clamp(0, 1).mul(255).round()
            assert np.abs(found - expected.permute(1, 2, 0).numpy()).max() <= 1

    @pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
    def test_mean_of_aligned_frames_is_sharp(self, dtype):
        clip = [frame.astype(dtype) * (1 if dtype == np.uint8 else 257) for frame in panned(7, (64, 80))]
        net = FourierBurstAccumulation(p=0)
        errors = []
        for flow in (True, False):
            restored = list(plain(net, self.OPTIONS | {'flow': flow}).restore(clip))[3]
            assert restored.dtype == dtype
            errors.append(np.abs(restored[12:-12, 12:-12].astype(float) - clip[3][12:-12, 12:-12]).mean())
        assert errors[0] < 0.15 * errors[1]


class TestWeights:
    def test_ema_weights_and_network_come_from_the_checkpoint(self, tmp_path):
        net, options = network(num_feat=8)
        wrong = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
        torch.save({'params': wrong, 'params_ema': net.state_dict(), 'network': options}, tmp_path / 'net.pth')
        loaded = VideoRestorer.from_weights(tmp_path / 'net.pth', device='cpu', backend='torch', precision='fp32')
        for one, other in zip(loaded.restore(frames(3)), plain(net, options).restore(frames(3)), strict=True):
            assert np.array_equal(one, other)

    @pytest.mark.slow
    def test_weights_without_a_network_need_an_option_file(self, tmp_path):
        torch.save({'params': network(num_feat=8)[0].state_dict()}, tmp_path / 'net.pth')
        with pytest.raises(DBLRError, match='net.pth: does not state its network.*-opt'):
            VideoRestorer.from_weights(tmp_path / 'net.pth')
        option_file = tmp_path / 'train.yml'
        option_file.write_text('network_g: {type: DBLRNet, num_feat: 8, num_block: 1, input_skip: true}')
        restorer = VideoRestorer.from_weights(tmp_path / 'net.pth', option_file, device='cpu', backend='torch')
        assert len(list(restorer.restore(frames(2)))) == 2

    @pytest.mark.parametrize(('text', 'message'), [
        ('name: [', 'not valid YAML'),
        ('name: a', 'has no section network_g'),
        ('network_g: {type: DBLRnet}', 'its network cannot be built .*DBLRnet'),
    ])  # fmt: skip
    def test_invalid_option_file_is_named(self, tmp_path, text, message):
        torch.save({'params': network()[0].state_dict()}, tmp_path / 'net.pth')
        (tmp_path / 'train.yml').write_text(text)
        with pytest.raises(DBLRError, match=f'train.yml:.*{message}'):
            VideoRestorer.from_weights(tmp_path / 'net.pth', tmp_path / 'train.yml')


def test_missing_device_is_named():
    net, options = network()
    with pytest.raises(DBLRError, match="device 'gpu' is not available; found: cpu"):
        VideoRestorer(net, options, device='gpu')


def test_nan_is_refused():
    """Rounded to integers it was a black frame, which ended in a video without a word."""

    class Overflowing(torch.nn.Module):
        def forward(self, x):
            return x[:, 2] * torch.tensor(float('inf')) * 0

    with pytest.raises(DBLRError, match='the network returns NaN; use precision fp32, or other weights'):
        next(plain(Overflowing(), {'type': 'DBN'}).restore(frames(1)))
