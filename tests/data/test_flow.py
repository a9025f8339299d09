"""Alignment of windows by optical flow, of arrays and in data sets."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dblr_plugin.data.flow import MIN_SIDE, align
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError

STEP = (2, 1)  # pixels to the left and up, from frame to frame


def panned(count: int = 5, size: tuple[int, int] = (80, 96)) -> list[np.ndarray]:
    """Returns uint8 (h, w, 3) frames of a camera that moves evenly over a texture."""
    noise = np.random.default_rng(0).random((size[0] + 40, size[1] + 60, 3))
    # detail of several sizes, as in real video: the motion of fine grain alone is ambiguous
    layers = [cv2.normalize(cv2.GaussianBlur(noise, (0, 0), sigma), None, 0, 1, cv2.NORM_MINMAX) for sigma in (1.5, 5)]
    texture = (127 * sum(layers)).astype(np.uint8)
    places = [(STEP[1] * i, STEP[0] * i) for i in range(count)]
    return [texture[y : y + size[0], x : x + size[1]].copy() for y, x in places]


def error(one: np.ndarray, two: np.ndarray, margin: int = 16) -> float:
    """Mean absolute difference without a margin, as pixels that enter the frame cannot be aligned."""
    inner = slice(margin, -margin), slice(margin, -margin)
    return float(np.abs(one[inner].astype(float) - two[inner]).mean())


class TestAlign:
    @pytest.mark.parametrize('reference', [2, 4])
    @pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
    def test_neighbours_are_aligned_to_the_reference(self, reference, dtype):
        scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
        frames = [(frame * np.float32(scale)).astype(dtype) for frame in panned()]
        aligned = align(frames, reference)
        assert aligned[reference] is frames[reference]
        for before, after in zip(frames, aligned, strict=True):
            assert after.dtype == dtype and after.shape == before.shape
            if before is not frames[reference]:
                assert error(after, frames[reference]) < 0.12 * error(before, frames[reference])
                assert error(after, frames[reference]) < 3 * scale

    def test_single_channel_frames_are_aligned(self):
        frames = [frame[..., :1].astype(np.float32) / 255 for frame in panned()]
        aligned = align(frames, 2)
        assert aligned[0].shape == frames[0].shape
        assert error(aligned[0], frames[2]) < 0.12 * error(frames[0], frames[2])

    def test_channel_order_does_not_matter(self):
        swapped = align([np.ascontiguousarray(frame[..., ::-1]) for frame in panned()], 2)
        for one, other in zip(align(panned(), 2), swapped, strict=True):
            np.testing.assert_array_equal(one, other[..., ::-1])

    def test_neighbours_stay_sharp(self):
        noise = np.random.default_rng(0).random((80, 96, 3)).astype(np.float32)
        frame = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 0.9), None, 0, 1, cv2.NORM_MINMAX)
        shift = np.float32([[1, 0, 0.5], [0, 1, 0.5]])
        moved = cv2.warpAffine(
            frame, shift, frame.shape[1::-1], flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT
        )
        back = align([frame, moved], 0)[1]
        detail = [cv2.Laplacian(f[16:-16, 16:-16], cv2.CV_32F).std() for f in (frame, back)]
        assert detail[1] > 0.85 * detail[0]  # bilinear interpolation leaves 0.7

    @pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
    def test_consistent_alignment_fills_occlusions_from_the_reference(self, dtype):
        scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
        frames = [(frame * np.float32(scale)).astype(dtype) for frame in panned(2, (96, 128))]
        frames[1][30:60, 50:90] = 0  # a black object in the other frame only
        loose, consistent = (align(frames, 0, consistent=consistent)[1] for consistent in (False, True))
        assert consistent.dtype == dtype and consistent.shape == loose.shape
        hidden = np.s_[36:54, 58:82]
        assert error(loose[hidden], frames[0][hidden], 1) > 50 * scale
        assert error(consistent[hidden], frames[0][hidden], 1) < 2 * scale
        np.testing.assert_allclose(consistent[16:-16, 112:120], loose[16:-16, 112:120], atol=scale)
        assert not np.array_equal(consistent[16:-16, 112:120], frames[0][16:-16, 112:120])
        np.testing.assert_array_equal(consistent[:, 0], frames[0][:, 0])  # outside the other frame

    def test_frames_below_the_smallest_size_are_refused(self):
        align(panned(2, (MIN_SIDE, 300)), 0)
        with pytest.raises(DBLRError, match=r'frames of 31x40 \(w x h\) are too small for optical flow'):
            align(panned(2, (40, MIN_SIDE - 1)), 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clip of eight frames of 96x80."""
    (tmp_path / 'lq/pan').mkdir(parents=True)
    for i, frame in enumerate(panned(8)):
        assert cv2.imwrite(str(tmp_path / f'lq/pan/{i:08d}.png'), frame)
    return tmp_path / 'lq'


def options(root: Path, **changes) -> dict:
    return {'name': 'pan', 'dataroot_lq': str(root), 'dataroot_gt': str(root), **changes}


class TestDatasets:
    @pytest.mark.parametrize('changes', [{}, {'causal': True}, {'y_only': True}, {'random_reverse': True}], ids=str)
    def test_training_crops_with_flow_are_aligned(self, tree, changes):
        plain, aligned = (
            VideoDeblurDataset(options(tree, gt_size=48, use_hflip=True, use_rot=True, flow=flow, **changes))
            for flow in (False, True)
        )
        reference = 4 if changes.get('causal') else 2
        for seed in range(6):
            torch.manual_seed(seed)
            before = plain[seed % len(plain)]
            torch.manual_seed(seed)
            after = aligned[seed % len(aligned)]
            assert after['lq'].shape == before['lq'].shape and after['lq'].is_contiguous()
            assert torch.equal(after['gt'], before['gt']) and torch.equal(after['lq'][reference], before['gt'])
            neighbours = [i for i in range(5) if i != reference]
            errors = [(s['lq'][neighbours] - s['gt']).abs().mean().item() for s in (before, after)]
            # also at the border, as flow sees more than the crop; pixels outside the frame are repeated
            assert errors[1] < 0.5 * errors[0]

    def test_flow_works_in_frames_narrower_than_the_crop_margin(self, make_tree):
        """Flow then sees a square as wide as the frame, and crops may be anywhere in it."""
        tree = make_tree('lq', {'a': 6}, size=(72, 200))
        plain, aligned = (VideoDeblurDataset(options(tree, gt_size=56, flow=flow)) for flow in (False, True))
        for seed in range(8):
            torch.manual_seed(seed)
            before = plain[0]
            torch.manual_seed(seed)
            after = aligned[0]
            assert after['lq'].shape == before['lq'].shape
            assert torch.equal(after['lq'][2], before['lq'][2]) and torch.equal(after['gt'], before['gt'])

    @pytest.mark.parametrize('causal', [False, True])
    def test_test_set_aligns_whole_frames(self, tree, causal):
        plain, aligned = (VideoDeblurTestDataset(options(tree, causal=causal, flow=flow)) for flow in (False, True))
        frames = panned(8)
        for index in (0, 4, 7):
            before, after = plain[index], aligned[index]
            assert torch.equal(after['gt'], before['gt'])
            window = range(index - 4, index + 1) if causal else range(index - 2, index + 3)
            expected = align([frames[min(max(i, 0), 7)] for i in window], 4 if causal else 2)
            found = (after['lq'].permute(0, 2, 3, 1) * 255).round().byte().numpy()[..., ::-1]
            np.testing.assert_array_equal(found, expected)

    def test_too_small_clips_are_named(self, make_tree):
        tree = make_tree('lq', {'a': 6}, size=(24, 40))
        for cls, more in ((VideoDeblurDataset, {'gt_size': 16}), (VideoDeblurTestDataset, {})):
            cls(options(tree, **more))
            with pytest.raises(DBLRError, match=r"clip 'a' is 40x24 \(w x h\), and optical flow needs 32x32"):
                cls(options(tree, flow=True, **more))
