"""Small operations on decoded frames: crop, flip, to tensor, and a bounded memory of what was decoded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ['FrameCache', 'crop', 'flip', 'to_tensor']


def crop(frames: list[np.ndarray], top: int, left: int, side: int) -> np.ndarray:
    """Cuts the same square out of frames (h, w, 3) and returns it as one stack (t, side, side, 3)."""
    return np.stack([frame[top : top + side, left : left + side] for frame in frames])


def flip(stack: np.ndarray, horizontal: bool, vertical: bool, transpose: bool) -> np.ndarray:
    """Returns a view of a stack (t, h, w, 3) with all frames flipped and transposed alike, in BasicSR's order."""
    if horizontal:
        stack = stack[:, :, ::-1]
    if vertical:
        stack = stack[:, ::-1]
    return stack.transpose(0, 2, 1, 3) if transpose else stack


def to_tensor(stack: np.ndarray) -> torch.Tensor:
    """Turns uint8 BGR (t, h, w, 3) into contiguous float32 RGB (t, 3, h, w) in [0, 1]."""
    rgb = np.ascontiguousarray(stack[..., ::-1].transpose(0, 3, 1, 2))
    return torch.from_numpy(rgb).float().div_(255)


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
        """Returns the decoded frame (h, w, 3); it is shared with later calls and must not be written to."""
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
