"""Where a video cuts from one shot to the next, so that no exposure and no window reaches across a cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

__all__ = ['change_of', 'find_shots', 'is_cut', 'thumbnail', 'thumbnails']

THUMBNAIL = (32, 18)  # width, height: small enough to forgive motion, noise and compression

# A cut changes the whole picture at once: several times more than what the neighbouring frames change, and by some grey
# levels at least, as a still camera's neighbours change by nothing. Footage of the demo: 42 at its cut, 0.7 elsewhere.
RATIO = 3.0
FLOOR = 6.0
NEIGHBOURS = 12  # frames on either side


def thumbnails(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields each uint8 RGB frame (h, w, 3) as a small grey one, float32 (18, 32)."""
    return map(thumbnail, frames)


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """One uint8 RGB frame (h, w, 3) as a small grey one, float32 (18, 32)."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)


def find_shots(small: Sequence[np.ndarray]) -> list[range]:
    """Splits a video into shots.

    Args:
        small: The :func:`thumbnails` of all its frames.

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
    return change > max(FLOOR, RATIO * usual)


def _stands_out(change: Sequence[float], number: int) -> bool:
    before, after = change[max(0, number - NEIGHBOURS) : number], change[number + 1 : number + 1 + NEIGHBOURS]
    return is_cut(change[number], [*before, *after])
