"""Makes the blurry and sharp frames of a video's clips, in one pass over the video."""

from __future__ import annotations

import math
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dblr_plugin.data.images import decode
from dblr_plugin.data.linear_light import to_linear_light
from dblr_plugin.data.synthesis import average_exposure, write_png
from dblr_plugin.prepare.blur_settings import BlurSettings, Span
from dblr_plugin.prepare.hand_shake import HandHeld, moved
from dblr_plugin.prepare.in_between import in_betweens
from dblr_plugin.prepare.tree import clip_folder
from dblr_plugin.threads import parallel

__all__ = ['Exposure', 'blurry_frame', 'exposures', 'frame_paths', 'make_clips']

PERFECT = 100.0  # dB, for frames without any blur, whose PSNR would be infinite


@dataclass(frozen=True)
class Exposure:
    """The ``index``-th exposure of a clip: its source frames, uint8 RGB (h, w, 3), the sharp one in the middle."""

    span: Span
    index: int
    frames: tuple[np.ndarray, ...]

    @property
    def sharp(self) -> np.ndarray:
        """The ground truth: a source frame, untouched."""
        return self.frames[len(self.frames) // 2]


def make_clips(
    dst: Path, frames: Iterable[np.ndarray], spans: Sequence[Span], recipe: BlurSettings, label: str
) -> list[float]:
    """Writes the frames of all spans of one video into a tree; those that are there already are only measured.

    Args:
        dst: The tree.
        frames: All frames of the video, uint8 RGB (h, w, 3).
        spans: Its clips.
        recipe: How exposures are made.
        label: What the progress bar says.

    Returns:
        The mean PSNR of each span's blurry frames, in dB.
    """
    total = sum(len(span.centres) for span in spans)
    figures: dict[Span, list[float]] = {span: [] for span in spans}

    def make(exposure: Exposure) -> tuple[Span, float]:
        return exposure.span, _make(dst, exposure, recipe)

    cores = os.cpu_count() or 1
    for span, psnr in parallel(make, exposures(frames, spans), cores, total, label, unit='frame'):
        figures[span].append(psnr)
    return [float(np.mean(figures[span])) for span in spans]


def exposures(frames: Iterable[np.ndarray], spans: Sequence[Span]) -> Iterator[Exposure]:
    """Yields the exposures of all spans, each as soon as its last frame has come."""
    window: deque[np.ndarray] = deque(maxlen=max(span.average for span in spans))
    for number, frame in enumerate(frames):
        window.append(frame)
        for span in spans:
            centre = number - span.average // 2
            if centre in span.centres:
                yield Exposure(span, span.centres.index(centre), tuple(window)[-span.average :])


def blurry_frame(exposure: Exposure, recipe: BlurSettings) -> np.ndarray:
    """Returns the long exposure, uint8 RGB (h, w, 3).

    A shaken camera is where the sharp frame shows it to be in the middle of the exposure, and moves around that: so
    the sharp frame stays the source's own pixels.
    """
    lights = _lights(exposure.frames, recipe.in_between)
    if not recipe.shake:
        return average_exposure(light for _, light in lights)
    span = exposure.span
    seed = zlib.crc32(f'{recipe.seed} {span.part} {span.clip}'.encode())
    hand = HandHeld(recipe.shake, span.average, exposure.sharp.shape[:2], seed)
    centre = span.centres[exposure.index]
    middle = hand.pose(centre)
    return average_exposure(moved(light, hand.pose(centre + offset) - middle) for offset, light in lights)


def frame_paths(dst: Path, span: Span, index: int) -> dict[str, Path]:
    """Returns the files of one frame of a clip, by side."""
    return {side: dst / clip_folder(span.part, side, span.clip) / f'{index:08d}.png' for side in ('lq', 'gt')}


def _lights(frames: Sequence[np.ndarray], in_between: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (distance from the middle in source frames, linear light) of all frames and those in between."""
    first = -(len(frames) // 2)
    for number, frame in enumerate(frames):
        yield first + number, to_linear_light(frame)
        if number + 1 < len(frames):
            for step, light in enumerate(in_betweens(frame, frames[number + 1], in_between), start=1):
                yield first + number + step / (in_between + 1), light


def _make(dst: Path, exposure: Exposure, recipe: BlurSettings) -> float:
    """Writes one pair of frames, unless an earlier run did; returns the blurry one's PSNR in dB."""
    paths = frame_paths(dst, exposure.span, exposure.index)
    if all(path.is_file() for path in paths.values()):
        blurry = decode(paths['lq'].read_bytes(), str(paths['lq']))[..., ::-1]
    else:
        blurry = blurry_frame(exposure, recipe)
        write_png(paths['lq'], blurry)
        write_png(paths['gt'], exposure.sharp)
    error = np.mean((blurry.astype(np.float32) - exposure.sharp) ** 2)
    return min(PERFECT, 10 * math.log10(255**2 / error)) if error else PERFECT
