"""The benchmark's networks in video inference: folded, in tiles, on each backend, and with aligned windows."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from networks import build_trained
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dblr_plugin.acceleration import fold
from dblr_plugin.archs import DBN, DeepDeblur, FourierBurstAccumulation
from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.restore.backends import build_forward, openvino_installed
from dblr_plugin.restore.frame_restorer import FrameRestorer
from dblr_plugin.restore.video_restorer import VideoRestorer

CPU = torch.device('cpu')
NETWORKS = {'DBN': partial(DBN, num_feat=4), 'DeepDeblur': partial(DeepDeblur, num_feat=4, num_block=1, num_frame=5)}


def build(name: str) -> nn.Module:
    return build_trained(NETWORKS[name])


def panned(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """uint8 (h, w, 3) views of a texture that moves by two pixels."""
    noise = np.random.default_rng(0).random((size[0], size[1] + 2 * count, 3))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 1.5), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return [texture[:, 2 * i : 2 * i + size[1]].copy() for i in range(count)]


def restorer(net: nn.Module, options: dict, **settings) -> VideoRestorer:
    return VideoRestorer(net, options, device='cpu', backend='torch', precision='fp32', **settings)


@torch.no_grad()
def test_batch_norm_of_dbn_folds_away_transposed_convolutions_included():
    net, x = build('DBN'), torch.rand(1, 5, 3, 21, 34)
    folded = fold(net)
    assert not any(isinstance(module, _BatchNorm) for module in folded.modules())
    torch.testing.assert_close(folded(x), net(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize('size', [(203, 61), (50, 219)])
@pytest.mark.parametrize('name', NETWORKS)
def test_tiles_change_nothing_whatever_the_size(name, size):
    net, clip = build(name), panned(1, size)
    whole, tiled = (list(restorer(net, {'type': name}, tile=tile).restore(clip)) for tile in (0, 20))
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1 and (one != other).mean() < 1e-3


@pytest.mark.parametrize('backend', [
    'torch', pytest.param('openvino', marks=pytest.mark.skipif(not openvino_installed(), reason='openvino is missing')),
])  # fmt: skip
@pytest.mark.parametrize('name', NETWORKS)
@torch.no_grad()
def test_backends_restore_the_same(name, backend, caplog):
    net = build(name)
    forward = build_forward(net, CPU, backend, 'fp32')
    for size in ((40, 64), (33, 50)):
        window = torch.rand(1, 5, 3, *size)
        torch.testing.assert_close(forward(window), net(window), atol=2e-5, rtol=0)
    assert not caplog.text  # it did not fall back


class TestFlow:
    OPTIONS = {'type': 'FourierBurstAccumulation', 'p': 0}

    @pytest.mark.parametrize('flow', [True, 'consistent'])
    def test_a_video_gets_what_validation_measures(self, tmp_path, flow):
        clip = panned(7, (64, 80))
        (tmp_path / 'lq/pan').mkdir(parents=True)
        for i, frame in enumerate(clip):
            assert cv2.imwrite(str(tmp_path / f'lq/pan/{i:08d}.png'), frame[..., ::-1])
        dataset = VideoDeblurTestDataset({'name': 'pan', 'dataroot_lq': str(tmp_path / 'lq'), 'flow': flow})
        net = FourierBurstAccumulation()
        restore = FrameRestorer(net, NetworkTraits(3, 5, 2, flow=False))
        for i, found in enumerate(restorer(net, {'type': 'FourierBurstAccumulation', 'flow': flow}).restore(clip)):
            expected = restore(dataset[i]['lq'].unsqueeze(0))[0].clamp(0, 1).mul(255).round()
            assert np.abs(found - expected.permute(1, 2, 0).numpy()).max() <= 1

    @pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
    def test_the_mean_of_aligned_frames_is_sharp(self, dtype):
        clip = [frame.astype(dtype) * (1 if dtype == np.uint8 else 257) for frame in panned(7, (64, 80))]
        net = FourierBurstAccumulation(p=0)
        errors = []
        for flow in (True, False):
            restored = list(restorer(net, self.OPTIONS | {'flow': flow}).restore(clip))[3]
            assert restored.dtype == dtype
            errors.append(np.abs(restored[12:-12, 12:-12].astype(float) - clip[3][12:-12, 12:-12]).mean())
        assert errors[0] < 0.15 * errors[1]
