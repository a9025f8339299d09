"""Crops, flips and padding of frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.data.frames import flip
from dblr_plugin.data.train_sampler import SampleIndex
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.restore.frame_restorer import FrameRestorer

FRAMES = 6

DIHEDRAL = [lambda x, k=k, m=m: np.rot90(x[:, ::-1] if m else x, k) for k in range(4) for m in (False, True)]


def write_clip(root: Path, height: int, width: int, first: int) -> str:
    """Writes a clip whose pixels hold their position: blue is the frame number, green the row, red the column."""
    (root / 'a').mkdir(parents=True)
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    for number in range(FRAMES):
        frame = np.dstack([np.full_like(rows, first + number), rows, columns])
        assert cv2.imwrite(str(root / f'a/{number}.png'), frame)
    return str(root)


def numbers(picture: Tensor) -> np.ndarray:
    """Returns uint8 (h, w, 3): column, row, frame number."""
    return (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    hflip=st.booleans(),
    rotate=st.booleans(),
    seed=st.integers(0, 2**62),
    data=st.data(),
)
@pytest.mark.slow
def test_all_frames_of_a_sample_have_the_same_crop_and_flip(size, hflip, rotate, seed, data):
    """The crop is within the frame, the same in all six frames, and flipped in one of the eight ways of a square."""
    side = data.draw(st.integers(1, min(size)))
    with tempfile.TemporaryDirectory() as folder:
        lq, gt = (write_clip(Path(folder) / name, *size, first) for name, first in (('lq', 0), ('gt', 100)))
        opt = {'dataroot_lq': lq, 'dataroot_gt': gt, 'gt_size': side, 'use_hflip': hflip, 'use_rot': rotate}
        dataset = VideoDeblurDataset(opt)
        index = data.draw(st.integers(0, len(dataset) - 1))
        sample, again = dataset[SampleIndex(index, seed)], dataset[SampleIndex(index, seed)]
    assert torch.equal(sample['lq'], again['lq']) and torch.equal(sample['gt'], again['gt'])
    assert sample['key'] == f'a/{index + 2}'
    assert sample['lq'].shape == (5, 3, side, side) and sample['gt'].shape == (3, side, side)
    places = numbers(sample['gt'])[..., :2]
    for offset, frame in enumerate(sample['lq']):
        np.testing.assert_array_equal(numbers(frame)[..., :2], places)
        assert (numbers(frame)[..., 2] == index + offset).all()
    assert (numbers(sample['gt'])[..., 2] == 100 + index + 2).all()
    left, top = places.reshape(-1, 2).min(axis=0)
    assert top + side <= size[0] and left + side <= size[1]
    rows, columns = np.mgrid[top : top + side, left : left + side]
    crop = np.dstack([columns, rows])
    allowed = DIHEDRAL if rotate else [lambda x: x, lambda x: x[:, ::-1]] if hflip else [lambda x: x]
    assert any(np.array_equal(turn(crop), places) for turn in allowed)


@given(
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
)
def test_flip_is_one_of_the_eight_symmetries(flips, shape):
    stack = np.arange(np.prod(shape) * 3).reshape(*shape, 3)
    flipped = flip(stack, *flips)
    turns = [number for number, turn in enumerate(DIHEDRAL) if np.array_equal(turn(stack[0]), flipped[0])]
    assert turns
    for frame, expected in zip(flipped, stack, strict=True):
        np.testing.assert_array_equal(frame, DIHEDRAL[turns[0]](expected))


def test_flip_reaches_all_eight_symmetries():
    stack = np.arange(12).reshape(1, 2, 2, 3)
    seen = {flip(stack, bool(n & 1), bool(n & 2), bool(n & 4)).tobytes() for n in range(8)}
    assert seen == {turn(stack[0]).tobytes() for turn in DIHEDRAL} and len(seen) == 8


class MiddleFrameOf(nn.Module):
    """Returns the middle frame, and refuses sizes that a network with strides cannot take."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, window: Tensor) -> Tensor:
        assert window.shape[-2] % self.multiple == window.shape[-1] % self.multiple == 0
        assert window.shape[-2] > 0 and window.shape[-1] > 0
        return window[:, window.shape[1] // 2]


@settings(max_examples=150)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(0, 2), st.integers(1, 70), st.integers(1, 70)),
    multiple=st.integers(1, 64),
    num_in_ch=st.sampled_from([1, 3]),
)
def test_padding_for_a_network_is_removed(shape, multiple, num_in_ch):
    batch, half, height, width = shape
    generator = torch.Generator().manual_seed(height * 100 + width)
    window = torch.rand(batch, 2 * half + 1, 3, height, width, generator=generator)
    traits = NetworkTraits(num_in_ch, 2 * half + 1, half, flow=False)
    restored = FrameRestorer(MiddleFrameOf(multiple), traits, multiple)(window)
    assert restored.shape == (batch, 3, height, width)
    # conversion to Y and back rounds
    torch.testing.assert_close(restored, window[:, half], rtol=0, atol=0 if num_in_ch == 3 else 2e-6)
