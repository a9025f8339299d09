"""Finds the cuts of a video: where a frame differs from the one before far more than those around it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

__all__ = ['change_of', 'find_shots', 'is_cut', 'thumbnail']

_THUMBNAIL = (32, 18)  # width, height: small enough to forgive motion, noise and compression

# A cut changes the whole picture at once: several times more than what the neighbouring frames change, and by some grey
# levels at least, as a still camera's neighbours change by nothing. Footage of the demo: 42 at its cut, 0.7 elsewhere.
_RATIO = 3.0
_FLOOR = 6.0
_NEIGHBOURS_OF_ALL = 12  # frames on either side


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """One uint8 RGB frame (h, w, 3) as a small grey one, float32 (18, 32)."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)


def find_shots(small: Sequence[np.ndarray]) -> list[range]:
    """Splits a video into shots.

    Args:
        small: The :func:`thumbnail` of each of its frames.

    Returns:
        The frame numbers of each shot, in order; together they are all frames.
    """
    change = [change_of(before, after) for before, after in itertools.pairwise(small)]
    starts = [0, *(number + 1 for number in range(len(change)) if _stands_out(change, number)), len(small)]
    return [range(first, end) for first, end in itertools.pairwise(starts) if first < end]


def change_of(before: np.ndarray, after: np.ndarray) -> float:
    """How much two thumbnails differ, in grey levels."""
    return float(np.abs(after - before).mean())


def is_cut(change: float, neighbours: Sequence[float]) -> bool:
    """Whether a change from one frame to the next stands out among those around it."""
    usual = float(np.median(neighbours)) if neighbours else 0.0
    return change > max(_FLOOR, _RATIO * usual)


def _stands_out(change: Sequence[float], number: int) -> bool:
    before, after = (
        change[max(0, number - _NEIGHBOURS_OF_ALL) : number],
        change[number + 1 : number + 1 + _NEIGHBOURS_OF_ALL],
    )
    return is_cut(change[number], [*before, *after])
