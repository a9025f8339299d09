"""Reads the frames of a window, flips them, and converts them to tensors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from dblr_plugin.errors import DBLRError, raise_faults

__all__ = ['coin', 'flip', 'flip_randomly', 'read_each', 'to_planes', 'to_tensor', 'unit_range']

# n / 255 in float32, bit-exact: a lookup is four times as fast as a division
_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


def read_each(reads: Iterable[Callable[[], np.ndarray]]) -> list[np.ndarray]:
    """Calls each function, which reads a frame of a window; one DBLRError lists all that cannot be read."""
    frames, faults = [], []
    for read in reads:
        try:
            frames.append(read())
        except DBLRError as error:
            faults.append(str(error))
    raise_faults(list(dict.fromkeys(faults)), 'frames of a window')  # frames repeat at a clip's ends
    return frames


def flip(stack: np.ndarray, horizontal: bool, vertical: bool, transpose: bool) -> np.ndarray:
    """Returns a view of a stack (t, h, w, c) with all frames flipped and transposed alike, in BasicSR's order."""
    if horizontal:
        stack = stack[:, :, ::-1]
    if vertical:
        stack = stack[:, ::-1]
    return stack.transpose(0, 2, 1, 3) if transpose else stack


def flip_randomly(stack: np.ndarray, opt: Mapping[str, Any], rng: random.Random) -> np.ndarray:
    """Flips a stack as the data set's options ``use_hflip`` and ``use_rot`` allow; see :func:`flip`."""
    return flip(stack, coin(opt, 'use_hflip', rng), coin(opt, 'use_rot', rng), coin(opt, 'use_rot', rng))


def coin(opt: Mapping[str, Any], option: str, rng: random.Random) -> bool:
    """Draws whether to apply an augmentation, half the time; never if its option is off."""
    return bool(opt.get(option, False)) and rng.random() < 0.5


def to_tensor(stack: np.ndarray) -> torch.Tensor:
    """Converts crops, uint8 BGR (t, h, w, 3), to contiguous float32 RGB (t, 3, h, w) in [0, 1].

    Float32 Y (t, h, w, 1) becomes (t, 1, h, w), with its values.
    """
    planes = stack[..., ::-1].transpose(0, 3, 1, 2).copy()
    return torch.from_numpy(planes) if planes.dtype == np.float32 else unit_range([planes])[0]


def to_planes(frame: np.ndarray) -> np.ndarray:
    """Converts a uint8 BGR frame (h, w, 3) to uint8 RGB planes (3, h, w)."""
    return np.stack(cv2.split(frame)[::-1])


def unit_range(planes: Sequence[np.ndarray]) -> torch.Tensor:
    """Stacks contiguous uint8 arrays of one shape, with at least two dimensions, as float32 in [0, 1]."""
    values = np.empty((len(planes), *planes[0].shape), np.float32)
    for source, target in zip(planes, values, strict=True):
        flat = -1, source.shape[-1]
        cv2.LUT(source.reshape(flat), _UNIT, dst=target.reshape(flat))
    return torch.from_numpy(values)
