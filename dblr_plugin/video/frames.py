"""The interfaces of sources and sinks, and the frames that pass between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, Self

import cv2
import numpy as np

from dblr_plugin.errors import DBLRError

__all__ = ['Extent', 'Frame', 'Sink', 'Source', 'scaled_size', 'shrink']


@dataclass(frozen=True)
class Frame:
    """One picture of a video or a folder.

    Attributes:
        pixels: RGB (h, w, 3), contiguous: uint8, or uint16 over its full range where the source has more than 8 bits.
        name: In a folder the file's name; in a video the picture's number, ``00000000`` for the first that is read.
        pts: In a video its place in time, in the source's time base; these increase from picture to picture.
        duration: How long it is shown, in the same units; None where only the next picture tells.
    """

    pixels: np.ndarray
    name: str
    pts: int | None
    duration: int | None = None


@dataclass(frozen=True)
class Extent:
    """How much there is of pictures and time.

    Attributes:
        pictures: Their number.
        seconds: From the first picture's begin to the last one's end; None for files of pictures.
    """

    pictures: int
    seconds: Fraction | None = None

    def __str__(self) -> str:
        time = '' if self.seconds is None else f', {float(self.seconds):.2f} s'
        return f'{self.pictures} frames{time}'


class Source(Protocol):
    """Pictures to restore: iterated once, from the front; decoding happens in the iteration.

    Attributes:
        path: The video or folder; of a glob, the folder of the first match.
        size: (h, w) of every picture, upright and shrunk.
        high_bit_depth: Whether the pictures are uint16.
        count: How many there will be; None where only decoding tells.
    """

    path: Path
    size: tuple[int, int]
    high_bit_depth: bool
    count: int | None

    def skip(self, pictures: int) -> None:
        """Has so many pictures not be yielded, from the front; they are read as far as those behind them need it."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yields the pictures; raises DBLRError, naming file and fix, where one cannot be had."""
        ...

    def extent(self) -> Extent:
        """Returns what the source says that it holds, or what was read where it does not; once all is read."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Sink(Protocol):
    """Where restored pictures go. Either ``finish`` or ``abandon`` is the last call.

    Attributes:
        done: How many pictures are there from an earlier run; the next one to write is behind them.
    """

    done: int

    def write(self, picture: Frame) -> None:
        """Takes the next picture; its size may differ from the source's, but is the same for all.

        Raises:
            DBLRError: The disk or the encoder refuses.
        """
        ...

    def finish(self) -> None:
        """Completes the output and gives it its name; raises DBLRError where that fails."""
        ...

    def extent(self) -> Extent:
        """Returns what was written."""
        ...

    def abandon(self) -> bool:
        """Ends early, after an error or Ctrl-C.

        Returns:
            Whether something was kept: the pictures so far, as a playable video under the output's name or as files.
            Otherwise nothing is left behind.
        """
        ...


def scaled_size(size: tuple[int, int], scale_down: float) -> tuple[int, int]:
    """Returns (h, w) after shrinking, rounded to even numbers, which every encoder takes.

    Raises:
        DBLRError: Nothing is left of a side.
    """
    if scale_down == 1:
        return size
    height, width = (2 * round(side / scale_down / 2) for side in size)
    if not height * width:
        raise DBLRError(f'scale_down {scale_down:g} leaves nothing of {size[1]}x{size[0]} pixels; give a smaller one')
    return height, width


def shrink(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns pixels (h, w, 3) at ``size`` (h, w), each the mean of the area that it covers."""
    if pixels.shape[:2] == size:
        return pixels
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
