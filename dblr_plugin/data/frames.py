"""Flips decoded frames, converts them to tensors, and caches a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from dblr_plugin.errors import DBLRError, raise_faults

__all__ = ['FrameCache', 'flip', 'read_each', 'to_planes', 'to_tensor', 'unit_range']

# float32 quotients by 255, to the bit: looked up four times as fast as divided
_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


def read_each(reads: Iterable[Callable[[], np.ndarray]]) -> list[np.ndarray]:
    """Reads all frames of a window, so that one message says what is wrong with any of them.

    Args:
        reads: Each reads a frame, and raises DBLRError if it cannot.

    Raises:
        DBLRError: For all frames that cannot be read.
    """
    frames, faults = [], []
    for read in reads:
        try:
            frames.append(read())
        except DBLRError as error:
            faults.append(str(error))
    raise_faults(list(dict.fromkeys(faults)), 'frames of a window')  # at a clip's ends frames are repeated
    return frames


def flip(stack: np.ndarray, horizontal: bool, vertical: bool, transpose: bool) -> np.ndarray:
    """Returns a view of a stack (t, h, w, c) with all frames flipped and transposed alike, in BasicSR's order."""
    if horizontal:
        stack = stack[:, :, ::-1]
    if vertical:
        stack = stack[:, ::-1]
    return stack.transpose(0, 2, 1, 3) if transpose else stack


def to_tensor(stack: np.ndarray) -> torch.Tensor:
    """Turns a stack of crops into a contiguous float32 tensor.

    Args:
        stack: uint8 BGR (t, h, w, 3), or float32 Y (t, h, w, 1), whose values stay as they are.

    Returns:
        RGB (t, 3, h, w) in [0, 1], or Y (t, 1, h, w).
    """
    planes = stack[..., ::-1].transpose(0, 3, 1, 2).copy()
    return torch.from_numpy(planes) if planes.dtype == np.float32 else unit_range([planes])[0]


def to_planes(frame: np.ndarray) -> np.ndarray:
    """Turns a uint8 BGR frame (h, w, 3) into uint8 RGB planes (3, h, w)."""
    return np.stack(cv2.split(frame)[::-1])


def unit_range(planes: Sequence[np.ndarray]) -> torch.Tensor:
    """Stacks contiguous uint8 arrays of one shape, with at least two dimensions, as float32 in [0, 1]."""
    values = np.empty((len(planes), *planes[0].shape), np.float32)
    for source, target in zip(planes, values, strict=True):
        flat = -1, source.shape[-1]
        cv2.LUT(source.reshape(flat), _UNIT, dst=target.reshape(flat))
    return torch.from_numpy(values)


class FrameCache:
    """Remembers the frames decoded last, so that overlapping windows read in order decode each frame once.

    Args:
        read: Decodes ``(clip, frame)``, such as a store's ``read``.
        capacity: How many frames are kept. A window's length is enough for windows read in order.
    """

    def __init__(self, read: Callable[[str, str], np.ndarray], capacity: int) -> None:
        self._read = read
        self._capacity = capacity
        self._frames: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def __call__(self, clip: str, frame: str) -> np.ndarray:
        """Returns the decoded frame; it is shared with later calls and must not be written to."""
        key = clip, frame
        if key not in self._frames:
            self._frames[key] = self._read(clip, frame)
        self._frames.move_to_end(key)
        if len(self._frames) > self._capacity:
            self._frames.popitem(last=False)
        return self._frames[key]

    def __len__(self) -> int:
        return len(self._frames)

    def __getstate__(self) -> dict[str, Any]:
        """A copy for another process starts empty: pixels are cheaper to decode than to send."""
        return {**self.__dict__, '_frames': OrderedDict()}
