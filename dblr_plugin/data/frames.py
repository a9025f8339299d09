"""Flips decoded frames, converts them to tensors, and caches a limited number of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from dblr_plugin.errors import DBLRError, raise_faults

__all__ = ['FrameCache', 'flip', 'read_each', 'to_planes', 'to_tensor', 'unit_range']

# n / 255 in float32, bit-exact: a lookup is four times as fast as a division
_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


def read_each(reads: Iterable[Callable[[], np.ndarray]]) -> list[np.ndarray]:
    """Reads all frames of a window, and reports all faults in one message.

    Args:
        reads: Functions that each read a frame, and raise DBLRError if they cannot.

    Raises:
        DBLRError: Some frames cannot be read; the message lists them all.
    """
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


def to_tensor(stack: np.ndarray) -> torch.Tensor:
    """Converts a stack of crops to a contiguous float32 tensor.

    Args:
        stack: uint8 BGR (t, h, w, 3), or float32 Y (t, h, w, 1), which keeps its values.

    Returns:
        RGB (t, 3, h, w) in [0, 1], or Y (t, 1, h, w).
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


class FrameCache:
    """Caches the most recently used frames, so that overlapping windows read in order decode each frame once.

    Args:
        read: Decodes ``(clip, frame)``, such as a store's ``read``.
        capacity: Maximum number of frames. A window's length is enough for windows read in order.
    """

    def __init__(self, read: Callable[[str, str], np.ndarray], capacity: int) -> None:
        self._read = read
        self._capacity = capacity
        self._frames: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()

    def __call__(self, clip: str, frame: str) -> np.ndarray:
        """Returns the decoded frame; it is shared between calls and must not be modified."""
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
        """Returns the state without frames: they are cheaper to decode again than to send to another process."""
        return {**self.__dict__, '_frames': OrderedDict()}
