"""Splits a sharp video into clips, and makes their blurry frames by averaging exposures, in one pass."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.colour import from_linear_light, to_linear_light
from dblr_plugin.data.flow import MIN_SIDE, optical_flow, warped
from dblr_plugin.data.images import decode
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, make_folder
from dblr_plugin.prepare.tree import TreeClip, clip_folder
from dblr_plugin.processes import usable_cores
from dblr_plugin.threads import parallel

__all__ = [
    'LEAST_FRAMES', 'BlurSettings', 'Exposure', 'HandHeld', 'Span', 'average_exposure', 'blurry_frame', 'exposures',
    'frame_paths', 'in_betweens', 'make_clips', 'moved', 'split', 'write_png',
]  # fmt: skip

#: Minimum frames of a clip that can be trained on: one window.
LEAST_FRAMES = 5


@dataclass(frozen=True)
class BlurSettings:
    """How blurry clips are made.

    Args:
        average: Source frames per exposure, odd; each number gives separate clips.
        stride: Source frames from one exposure to the next; None means the exposure's length, as with an always open
            shutter, or less in shots that would otherwise give clips too short to train on.
        in_between: Frames interpolated by optical flow between two source frames.
        shake: Amplitude of a virtual hand-held camera, in pixels; 0 is a tripod.
        test_share: Fraction of each shot, at its end, used for testing; from 0 up to 1, exclusive.
        seed: Random seed of the camera's path.

    Raises:
        DBLRError: A setting is out of range.
    """

    average: tuple[int, ...] = (7,)
    stride: int | None = None
    in_between: int = 0
    shake: float = 0.0
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for number in self.average:
            if number < 1 or number % 2 == 0:
                raise DBLRError(
                    f'the number of averaged frames must be odd, so that one is in the middle; got {number}'
                )
        if len(set(self.average)) < len(self.average):
            raise DBLRError(f'the numbers of averaged frames must differ, got {" ".join(map(str, self.average))}')
        if self.stride is not None and self.stride < 1:
            raise DBLRError(f'the stride must be at least 1, got {self.stride}')
        if self.in_between < 0 or self.seed < 0:
            raise DBLRError('in-betweens and seed cannot be negative')
        if not 0 <= self.shake < math.inf:
            raise DBLRError(f'shake must be a number of pixels from 0, got {self.shake}')
        if not 0 <= self.test_share < 1:
            raise DBLRError(f'the test share must be at least 0 and less than 1, got {self.test_share}')

    @property
    def least_shot(self) -> int:
        """Number of source frames in the shortest shot that can be trained on."""
        return max(self.average) + (LEAST_FRAMES - 1) * (self.stride or 1)

    def __str__(self) -> str:
        average = ' '.join(map(str, self.average))
        stride = 'as average' if self.stride is None else self.stride
        return (
            f'average {average}, stride {stride}, in-between {self.in_between}, shake {self.shake:g}, '
            f'test share {self.test_share:g}, seed {self.seed}'
        )


@dataclass(frozen=True)
class Span:
    """Consecutive source frames that become one clip, and the numbers of the frames at the centre of an exposure."""

    part: str
    clip: str
    average: int
    frames: range
    centres: range


def split(name: str, shots: Sequence[range], recipe: BlurSettings) -> tuple[list[Span], list[str]]:
    """Splits the shots of a video into training and test spans, which share no source frame.

    A shot too short for both is used for training. Training clips have at least :data:`LEAST_FRAMES` frames.

    Args:
        name: The video's name; clips are named after it, such as ``name_shot1_average7``.
        shots: Frame numbers of each shot.
        recipe: How the clips are made.

    Returns:
        The spans, and a message for each shot that is too short.
    """
    spans, skipped = [], []
    for number, shot in enumerate(shots, start=1):
        for part, frames in _parts(shot, recipe).items():
            for average in recipe.average:
                reach = average // 2
                middles = frames[reach : len(frames) - reach]
                centres = middles[:: recipe.stride or _stride(len(middles), average)]
                spans.append(Span(part, f'{name}_shot{number}_average{average}', average, frames, centres))
        if len(shot) < recipe.least_shot:
            skipped.append(
                f'{name}: shot {number}, frames {shot[0]} to {shot[-1]}, is left out: '
                f'{LEAST_FRAMES} exposures, which training needs, take {recipe.least_shot} frames'
            )
    return spans, skipped


def _stride(middles: int, average: int) -> int:
    """Returns the exposure's length, or less if the clip would otherwise be too short to train on."""
    return max(1, min(average, (middles - 1) // (LEAST_FRAMES - 1)))


def _parts(shot: range, recipe: BlurSettings) -> dict[str, range]:
    """Returns part -> frames: at least a window for training, and an exposure of every length for testing."""
    if len(shot) < recipe.least_shot:
        return {}
    test = max(round(len(shot) * recipe.test_share), max(recipe.average)) if recipe.test_share else 0
    if not test or len(shot) - test < recipe.least_shot:
        return {'train': shot}
    return {'train': shot[: len(shot) - test], 'test': shot[len(shot) - test :]}


# Uncompressed: noisy footage hardly shrinks, and training decodes every frame many times.
_PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 0)
PERFECT = 100.0  # dB, for frames without any blur, which would have infinite PSNR


def in_betweens(first: np.ndarray, second: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Yields ``count`` frames evenly spaced between two frames, in linear light.

    Each blends both frames, warped to its time along the forward and backward flow, with a higher weight for the nearer
    one. The flow is taken at the target's pixels instead of the source's, which is exact where it is smooth.

    Args:
        first: uint8 RGB frame (h, w, 3).
        second: The next frame, of the same size.
        count: Number of frames, 0 or more.

    Yields:
        float32 (h, w, 3) in [0, 1].

    Raises:
        DBLRError: The frames are too small for optical flow.
    """
    if count == 0:
        return
    if min(first.shape[:2]) < MIN_SIDE:
        raise DBLRError(f'frames of {first.shape[1]}x{first.shape[0]} are too small for in-betweens; leave them out')
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    forward, backward = optical_flow(*greys), optical_flow(*greys[::-1])
    lights = to_linear_light(first), to_linear_light(second)
    for number in range(1, count + 1):
        time = np.float32(number / (count + 1))
        yield (1 - time) * _moved(lights[0], time * forward) + time * _moved(lights[1], (1 - time) * backward)


def _moved(light: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Moves the pixels of a float32 frame (h, w, 3) along a flow (h, w, 2), x first."""
    return warped(light, -flow, cv2.INTER_LINEAR)


WAVES = 4
# cycles per exposure: slow drift hardly bends the path, the fastest tremor reverses within an exposure
MIN_RATE, MAX_RATE = 0.1, 0.8


class HandHeld:
    """Smooth random camera path: two shifts and a small rotation, each a sum of slow sine waves.

    Args:
        amplitude: Root mean square of each shift, in pixels; the rotation moves the middle of a frame's shorter sides
            by half of that.
        exposure: Source frames per exposure, which sets the speed.
        size: (height, width) of a frame.
        seed: Random seed of the path.
    """

    def __init__(self, amplitude: float, exposure: int, size: tuple[int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._rates = 2 * math.pi / exposure * rng.uniform(MIN_RATE, MAX_RATE, (WAVES, 3))
        self._phases = rng.uniform(0, 2 * math.pi, (WAVES, 3))
        angle = amplitude / max(size)  # half the amplitude, at half a side from the centre
        self._scale = math.sqrt(2 / WAVES) * np.array([amplitude, amplitude, angle])

    def pose(self, time: float) -> np.ndarray:
        """Returns (x, y, angle) in pixels, pixels and radians, at a time in source frames."""
        return self._scale * np.sin(self._rates * time + self._phases).sum(0)


def moved(light: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Returns a frame as seen by the moved camera, with reflected borders.

    Args:
        light: float32 (h, w, 3).
        pose: (x, y, angle): shift in pixels, and rotation around the centre in radians; zeros change nothing.
    """
    height, width = light.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), math.degrees(pose[2]), 1.0)
    matrix[:, 2] += pose[:2]
    return cv2.warpAffine(light, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


@dataclass(frozen=True)
class Exposure:
    """The ``index``-th exposure of a clip: its source frames, uint8 RGB (h, w, 3), with the sharp one in the middle."""

    span: Span
    index: int
    frames: tuple[np.ndarray, ...]

    @property
    def sharp(self) -> np.ndarray:
        """The ground truth: an unmodified source frame."""
        return self.frames[len(self.frames) // 2]


def make_clips(
    dst: Path, frames: Iterable[np.ndarray], spans: Sequence[Span], recipe: BlurSettings, label: str
) -> list[TreeClip]:
    """Writes the clips of a video into a tree, and returns them; frames that already exist are only measured.

    Args:
        dst: The tree.
        frames: All frames of the video, uint8 RGB (h, w, 3).
        spans: The video's clips.
        recipe: How exposures are made.
        label: Label of the progress bar.
    """
    total = sum(len(span.centres) for span in spans)
    figures: dict[Span, list[float]] = {span: [] for span in spans}

    def make(exposure: Exposure) -> tuple[Span, tuple[int, int], float]:
        # not the exposure itself, whose frames would stay in memory while its result waits
        height, width, _ = exposure.sharp.shape
        return exposure.span, (height, width), _make(dst, exposure, recipe)

    for span, frame_size, psnr in parallel(make, exposures(frames, spans), usable_cores(), total, label, unit='frame'):
        figures[span].append(psnr)
        size = frame_size  # the same for all
    return [
        TreeClip(span.part, span.clip, len(psnrs), size, round(float(np.mean(psnrs)), 2))
        for span, psnrs in figures.items()
    ]


def exposures(frames: Iterable[np.ndarray], spans: Sequence[Span]) -> Iterator[Exposure]:
    """Yields the exposures of all spans, each as soon as its last frame has arrived."""
    window: deque[np.ndarray] = deque(maxlen=max(span.average for span in spans))
    for number, frame in enumerate(frames):
        window.append(frame)
        for span in spans:
            centre = number - span.average // 2
            if centre in span.centres:
                yield Exposure(span, span.centres.index(centre), tuple(window)[-span.average :])


def blurry_frame(exposure: Exposure, recipe: BlurSettings) -> np.ndarray:
    """Returns the long exposure, uint8 RGB (h, w, 3).

    Camera shake is relative to the pose in the middle of the exposure, so that the sharp frame keeps the source's
    pixels.
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
    """Returns side -> file for one frame of a clip."""
    return {side: dst / clip_folder(span.part, side, span.clip) / f'{index:08d}.png' for side in ('lq', 'gt')}


def average_exposure(lights: Iterable[np.ndarray]) -> np.ndarray:
    """Averages frames of linear light with equal weights and returns the encoded uint8 frame (h, w, 3).

    Args:
        lights: One or more float32 frames (h, w, 3) in [0, 1]; consumed one by one, so a generator will do.
    """
    total: np.ndarray = np.zeros((), np.float32)
    count = 0
    for light in lights:
        total, count = total + light, count + 1
    return from_linear_light(total / np.float32(count))


def _lights(frames: Sequence[np.ndarray], in_between: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (offset from the middle in source frames, linear light) for all frames and in-betweens."""
    first = -(len(frames) // 2)
    for number, frame in enumerate(frames):
        yield first + number, to_linear_light(frame)
        if number + 1 < len(frames):
            for step, light in enumerate(in_betweens(frame, frames[number + 1], in_between), start=1):
                yield first + number + step / (in_between + 1), light


def _make(dst: Path, exposure: Exposure, recipe: BlurSettings) -> float:
    """Writes one pair of frames, unless an earlier run did; returns the blurry frame's PSNR in dB."""
    paths = frame_paths(dst, exposure.span, exposure.index)
    if all(path.is_file() for path in paths.values()):
        blurry = decode(paths['lq'].read_bytes(), str(paths['lq']))[..., ::-1]
    else:
        blurry = blurry_frame(exposure, recipe)
        write_png(paths['lq'], blurry)
        write_png(paths['gt'], exposure.sharp)
    error = np.mean((blurry.astype(np.float32) - exposure.sharp) ** 2)
    return min(PERFECT, 10 * math.log10(255**2 / error)) if error else PERFECT


def write_png(path: Path, frame: np.ndarray) -> None:
    """Writes a uint8 RGB frame (h, w, 3), creating the folder; the file appears once it is complete.

    Raises:
        DBLRError: The file cannot be written.
    """
    _, data = cv2.imencode('.png', cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), _PNG_OPTIONS)
    make_folder(path.parent)
    with atomic_write(path) as partial:
        partial.write_bytes(data.data)
