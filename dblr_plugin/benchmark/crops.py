"""Chooses the crops shown side by side in a report, by a rule that favours no method, and draws them.

Frames are covered by windows of one size that overlap by half. For each clip, the crop is the window of all scored
frames with the largest standard deviation of the methods' mean squared errors: where they differ most. Windows without
content (flat, black or white) are excluded. If there are more than four clips, the four with the largest standard
deviations are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from dblr_plugin.benchmark.plots import MarkerStyle, Theme, draw, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ['MAX_CROPS', 'RULE', 'Crop', 'choose_crops', 'draw_crops', 'window_errors', 'window_of']

MAX_CROPS = 4
WINDOW = (120, 160)  # height and width in pixels; smaller in small frames
# limits for a window's grey values: lower contrast counts as flat, a mean out of range as black or white
_LEAST_CONTRAST, _LEAST_GREY, _MOST_GREY = 16, 40, 215
# crops per line (more would be too small on a page), and the width of the whole frame in crops
_CROPS_ACROSS = 6
_WHOLE_FRAME = 1.6
RULE = (
    'for each clip, the {width}x{height} window (on a grid of half that size, over all scored frames) where the '
    "methods' mean squared errors differ most (largest standard deviation), ignoring flat, black and white windows; if "
    'there are more than four clips, the four with the largest values'
)


@dataclass(frozen=True)
class Crop:
    """The window of a clip where the methods differ most.

    Attributes:
        clip: Name of the clip.
        frame: Index of the frame in the clip.
        top, left: First row and column of the window.
        deviation: Standard deviation of the methods' mean squared errors there, in squared grey values.
        name: Name of the frame.
    """

    clip: str
    frame: int
    top: int
    left: int
    deviation: float
    name: str


def window_of(height: int, width: int) -> tuple[int, int]:
    """Height and width of the windows for a frame size: even, and at most half the frame."""
    limits = zip(WINDOW, (height, width), strict=True)
    rows, columns = (max(2, min(limit, side // 2) // 2 * 2) for limit, side in limits)
    return rows, columns


def window_errors(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Computes the mean squared error of each window of a frame.

    Args:
        restored, truth: ``(h, w, 3)`` in [0, 255].

    Returns:
        float32 ``(rows, columns)``; the window in row i and column j starts at i and j times half a window. 0 where the
        ground truth is flat, black or white, so that methods do not differ there.
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


def choose_crops(errors: Mapping[str, Mapping[str, np.ndarray]], clips: Mapping[str, Mapping]) -> list[Crop]:
    """Chooses crops by the rule.

    Args:
        errors: Method -> clip -> :func:`window_errors` of the scored frames, ``(n, rows, columns)``.
        clips: Clip -> ``frames``, the indices of its scored frames; ``names`` of all its frames; ``size``, height and
            width.

    Returns:
        One :class:`Crop` for each of up to four clips, in clip order.
    """
    crops = []
    for clip, about in clips.items():
        deviation = np.std([per_clip[clip] for per_clip in errors.values()], axis=0)
        frame, row, column = np.unravel_index(deviation.argmax(), deviation.shape)
        h, w = (side // 2 for side in window_of(*about['size']))
        index = about['frames'][frame]
        place = int(row) * h, int(column) * w
        crops.append(Crop(clip, index, *place, float(deviation.max()), about['names'][index]))
    shown = sorted(crops, key=lambda crop: crop.deviation, reverse=True)[:MAX_CROPS]
    return [crop for crop in crops if crop in shown]


def draw_crops(
    crops: Sequence[Crop],
    pictures: Sequence[Mapping[str, np.ndarray]],
    numbers: Mapping[str, int],
    folder: Path,
) -> None:
    """Draws the page of crops: for each, the whole frame with the crop marked at the left, then every method.

    Args:
        crops: The crops to show.
        pictures: For each crop, the whole frames: name -> uint8 BGR ``(h, w, 3)``, the ground truth last.
        numbers: Positions of the methods in the report.
        folder: Output folder; created if missing.
    """
    names = list(pictures[0])
    h, w = window_of(*pictures[0][names[0]].shape[:2])
    lines, columns = _crop_grid(len(names))
    cell = 1.75, 1.75 * h / w
    title = 0.2 * max(wrapped(name, 18).count('\n') + 1 for name in names)
    size = cell[0] * (columns + _WHOLE_FRAME), (cell[1] + 0.35 + title) * lines * len(crops)
    draw(folder, 'crops', size, partial(_paint_crops, crops, pictures, numbers))


def _crop_grid(number: int) -> tuple[int, int]:
    """Lines and columns for a number of crops, filled evenly."""
    lines = -(-number // _CROPS_ACROSS)
    return lines, -(-number // lines)


def _paint_crops(
    crops: Sequence[Crop],
    pictures: Sequence[Mapping[str, np.ndarray]],
    numbers: Mapping[str, int],
    figure: Figure,
    theme: Theme,
) -> None:
    names = list(pictures[0])
    lines, columns = _crop_grid(len(names))
    grid = figure.add_gridspec(len(crops) * lines, columns + 1, width_ratios=[_WHOLE_FRAME] + [1] * columns)
    for number, (crop, shown) in enumerate(zip(crops, pictures, strict=True)):
        first, truth = number * lines, shown[names[-1]]
        h, w = window_of(*truth.shape[:2])
        ax = figure.add_subplot(grid[first : first + lines, 0])
        _show(ax, truth)
        _outline(ax, crop, (h, w))
        ax.set_xlabel(wrapped(f'{crop.clip}, frame {crop.name}', 34), fontsize=8)
        cut = (slice(crop.top, crop.top + h), slice(crop.left, crop.left + w))
        for place, name in enumerate(names):
            ax = figure.add_subplot(grid[first + place // columns, 1 + place % columns])
            _show(ax, shown[name][cut])
            colour = MarkerStyle.of(numbers[name], theme).colour if name in numbers else theme.text
            ax.set_title(wrapped(name, 18), loc='center', fontsize=9, color=colour)
            if name != names[-1]:
                error = np.square(shown[name][cut].astype(float) - truth[cut]).mean()
                ax.set_xlabel('equal' if error == 0 else f'{10 * math.log10(255**2 / error):.2f} dB', fontsize=8)


def _show(ax: Axes, picture: np.ndarray) -> None:
    ax.imshow(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), interpolation='nearest')
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _outline(ax: Axes, crop: Crop, window: tuple[int, int]) -> None:
    """Outlines a crop so that it is visible on bright and dark images."""
    from matplotlib.patches import Rectangle

    for colour, width in (('black', 3), ('white', 1.4)):
        corner = crop.left - 0.5, crop.top - 0.5
        ax.add_patch(Rectangle(corner, window[1], window[0], fill=False, edgecolor=colour, linewidth=width))
