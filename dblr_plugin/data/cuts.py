"""Detects cuts in a video: where consecutive frames differ far more than those around them; without torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

__all__ = ['change_of', 'find_shots', 'is_cut', 'thumbnail']

_THUMBNAIL = (32, 18)  # width, height: small enough to forgive motion, noise and compression

# A cut changes the whole frame at once: several times more than between neighbouring frames, and by at least a few grey
# levels, as frames from a static camera hardly differ. In the demo footage: 42 at its cut, 0.7 elsewhere.
_RATIO = 3.0
_FLOOR = 6.0
_NEIGHBOURS_OF_ALL = 12  # frames on either side


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """Reduces a uint8 RGB frame (h, w, 3) to a small greyscale one, float32 (18, 32)."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)


def find_shots(small: Sequence[np.ndarray]) -> list[range]:
    """Splits a video, given the :func:`thumbnail` of each frame, into the frame numbers of each shot, in order."""
    change = [change_of(before, after) for before, after in itertools.pairwise(small)]
    starts = [0, *(number + 1 for number in range(len(change)) if _stands_out(change, number)), len(small)]
    return [range(first, end) for first, end in itertools.pairwise(starts) if first < end]


def change_of(before: np.ndarray, after: np.ndarray) -> float:
    """Returns the mean absolute difference of two thumbnails, in grey levels."""
    return float(np.abs(after - before).mean())


def is_cut(change: float, neighbours: Sequence[float]) -> bool:
    """Returns whether the difference between two consecutive frames stands out from its neighbours."""
    usual = float(np.median(neighbours)) if neighbours else 0.0
    return change > max(_FLOOR, _RATIO * usual)


def _stands_out(change: Sequence[float], number: int) -> bool:
    before = change[max(0, number - _NEIGHBOURS_OF_ALL) : number]
    after = change[number + 1 : number + 1 + _NEIGHBOURS_OF_ALL]
    return is_cut(change[number], [*before, *after])
