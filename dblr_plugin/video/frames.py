"""The interfaces of sources and sinks, and the frames that pass between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, Self

import cv2
import numpy as np

from dblr_plugin.errors import DBLRError, counted

__all__ = ['Extent', 'Frame', 'Sink', 'Source', 'eight_bits', 'scaled_size', 'shrink']


@dataclass(frozen=True)
class Frame:
    """One frame of a video, or one image of a folder.

    Attributes:
        pixels: RGB (h, w, 3), contiguous: uint8, or uint16 over its full range where the source has more than 8 bits.
        name: The file's name in a folder; in a video the frame's number, ``00000000`` for the first that is read.
        pts: In a video the timestamp, in the source's time base; strictly increasing.
        duration: How long it is shown, in the same units; None if it lasts until the next frame.
    """

    pixels: np.ndarray
    name: str
    pts: int | None
    duration: int | None = None


@dataclass(frozen=True)
class Extent:
    """Number of frames and total duration.

    Attributes:
        pictures: Number of frames.
        seconds: From the beginning of the first frame to the end of the last; None for image files.
    """

    pictures: int
    seconds: Fraction | None = None

    def __str__(self) -> str:
        time = '' if self.seconds is None else f', {float(self.seconds):.2f} s'
        return f'{counted(self.pictures, "frame")}{time}'


class Source(Protocol):
    """Frames to restore: iterated once, from the beginning; decoding happens in the iteration.

    Attributes:
        path: The video or folder; for a glob, the folder of the first match.
        size: (h, w) of every frame, upright and shrunk.
        high_bit_depth: Whether the frames are uint16.
        count: Number of frames; None if only decoding can tell.
        likely_count: About how many there are: only MP4 says it exactly, others say how long they are; None if unknown.
    """

    path: Path
    size: tuple[int, int]
    high_bit_depth: bool
    count: int | None
    likely_count: int | None

    @property
    def damaged(self) -> int:
        """Number of frames so far that could not be decoded, or were decoded from damaged data."""
        ...

    def skip(self, pictures: int) -> None:
        """Leaves out the first ``pictures`` frames; they are still read as far as later frames need them."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames; raises DBLRError, naming file and fix, if one cannot be read."""
        ...

    def extent(self) -> Extent:
        """Returns the extent that the source declares, or else what was read; only valid after the iteration."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Sink(Protocol):
    """The output for restored frames. Either ``finish`` or ``abandon`` is the last call.

    Attributes:
        done: Number of frames from an earlier run; the next one to write comes after them.
    """

    done: int

    def write(self, picture: Frame) -> None:
        """Writes the next frame; its size may differ from the source's, but is the same for all.

        Raises:
            DBLRError: The disk or the encoder reports an error.
        """
        ...

    def finish(self) -> None:
        """Completes the output and gives it its final name; raises DBLRError on failure."""
        ...

    def extent(self) -> Extent:
        """Returns the extent of what was written."""
        ...

    def abandon(self) -> bool:
        """Ends early, after an error or Ctrl-C.

        Returns:
            Whether something was kept: the frames so far, as a playable video under the output's name or as files.
            Otherwise nothing remains.
        """
        ...


def scaled_size(size: tuple[int, int], scale_down: float) -> tuple[int, int]:
    """Returns (h, w) after shrinking, rounded to even numbers, which every encoder accepts.

    Raises:
        DBLRError: A side would become 0.
    """
    if scale_down == 1:
        return size
    height, width = (2 * round(side / scale_down / 2) for side in size)
    if not height * width:
        raise DBLRError(f'--scale-down {scale_down:g} leaves nothing of {size[1]}x{size[0]} pixels; give a smaller one')
    return height, width


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 or full-range uint16 pixels as uint8, rounded."""
    return pixels if pixels.dtype == np.uint8 else cv2.convertScaleAbs(pixels, alpha=1 / 257)


def shrink(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns pixels (h, w, 3) at ``size`` (h, w), each the mean of the area it covers."""
    if pixels.shape[:2] == size:
        return pixels
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
