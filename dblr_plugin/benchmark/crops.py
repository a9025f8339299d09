"""Chooses the crops that a report shows side by side, by a rule that favours no method.

Frames are covered by windows of one size, overlapping by half. In each clip that window of all scored frames is shown
in which the methods' mean squared errors have the largest standard deviation: where they differ most. Windows that show
nothing, flat, black or white, do not count. Of more than four clips, the four with the largest ones are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ['MAX_CROPS', 'RULE', 'Crop', 'choose_crops', 'window_errors', 'window_of']

MAX_CROPS = 4
WINDOW = (120, 160)  # height and width in pixels; less in small frames
# of a window's grey values: less contrast is flat, a mean outside black or white
_LEAST_CONTRAST, _LEAST_GREY, _MOST_GREY = 16, 40, 215
RULE = (
    'per clip the window ({width}x{height} pixels, on a grid of half of that, over all scored frames) in which the '
    "methods' mean squared errors have the largest standard deviation, but for those that are flat, black or white; of "
    'more than four clips the four with the largest ones'
)


@dataclass(frozen=True)
class Crop:
    """Where the methods differ most in a clip.

    Attributes:
        clip: Its name.
        frame: Index of the frame in the clip.
        top, left: The window's first row and column.
        deviation: Standard deviation of the methods' mean squared errors there, in squared grey values.
    """

    clip: str
    frame: int
    top: int
    left: int
    deviation: float


def window_of(height: int, width: int) -> tuple[int, int]:
    """Height and width of the windows in frames of a size: even, and at most half of the frame."""
    limits = zip(WINDOW, (height, width), strict=True)
    rows, columns = (max(2, min(limit, side // 2) // 2 * 2) for limit, side in limits)
    return rows, columns


def window_errors(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mean squared errors in all windows of a frame.

    Args:
        restored, truth: ``(h, w, 3)`` in [0, 255].

    Returns:
        float32 ``(rows, columns)``; the window of row i and column j begins at i and j times half a window. 0 for
        windows whose truth is flat, black or white, so that methods do not differ there.
    """
    errors = _window_means(np.square(restored.astype(np.float32) - truth.astype(np.float32)).mean(axis=2))
    grey = truth.mean(axis=2, dtype=np.float32)
    mean = _window_means(grey)
    contrast = np.sqrt(np.maximum(_window_means(grey**2) - mean**2, 0))
    shows = (contrast >= _LEAST_CONTRAST) & (mean >= _LEAST_GREY) & (mean <= _MOST_GREY)
    return np.where(shows, errors, 0).astype(np.float32)


def _window_means(values: np.ndarray) -> np.ndarray:
    h, w = (side // 2 for side in window_of(*values.shape))
    rows, columns = values.shape[0] // h, values.shape[1] // w
    cells = values[: rows * h, : columns * w].reshape(rows, h, columns, w).mean(axis=(1, 3))
    return (cells[:-1, :-1] + cells[1:, :-1] + cells[:-1, 1:] + cells[1:, 1:]) / 4


def choose_crops(
    errors: Mapping[str, Mapping[str, np.ndarray]],
    frames: Mapping[str, list[int]],
    sizes: Mapping[str, tuple[int, int]],
) -> list[Crop]:
    """Chooses by the rule.

    Args:
        errors: Method -> clip -> :func:`window_errors` of the scored frames, ``(n, rows, columns)``.
        frames: Clip -> the indices of its scored frames.
        sizes: Clip -> height and width of its frames.

    Returns:
        One :class:`Crop` for each of up to four clips, in the clips' order.
    """
    crops = []
    for clip, indices in frames.items():
        deviation = np.std([per_clip[clip] for per_clip in errors.values()], axis=0)
        frame, row, column = np.unravel_index(deviation.argmax(), deviation.shape)
        h, w = (side // 2 for side in window_of(*sizes[clip]))
        crops.append(Crop(clip, indices[frame], int(row) * h, int(column) * w, float(deviation.max())))
    shown = sorted(crops, key=lambda crop: crop.deviation, reverse=True)[:MAX_CROPS]
    return [crop for crop in crops if crop in shown]
