"""Settings for making blurry clips from a sharp video, and the split of its frames into clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dblr_plugin.errors import DBLRError

__all__ = ['LEAST_FRAMES', 'BlurSettings', 'Span', 'split']

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
