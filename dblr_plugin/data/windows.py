"""Selects the frames of each window: padded at the ends of a clip, and confined to one shot of a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
from basicsr.data.data_util import generate_frame_indices

from dblr_plugin.archs.traits import restored_index, round_up
from dblr_plugin.data.cuts import change_of, is_cut

__all__ = [
    'StreamFrame', 'first_uses', 'gather', 'lead_of_shots', 'lead_of_windows', 'reach_of', 'shots', 'spread',
    'window_indices', 'windows',
]  # fmt: skip

Item = TypeVar('Item')

# Frame differences on either side that a candidate cut is compared with. Preparation, which has all frames, uses 12;
# here, each one delays the output by a frame.
NEIGHBOURS = 3


def reach_of(num_frame: int, causal: bool) -> tuple[int, int]:
    """Returns how many frames of a window come before the one to restore, and how many after it."""
    before = restored_index(num_frame, causal)
    return before, 0 if causal else before


def window_indices(centre: int, length: int, num_frame: int, padding: str, causal: bool = False) -> list[int]:
    """Returns the indices of the window around ``centre``, padded at a clip's ends as in BasicSR.

    In clips shorter than the window, BasicSR's indices can fall outside the clip; they are clamped. A causal window
    ends with ``centre``; before the clip's start, its first frame is repeated.

    >>> window_indices(0, 100, 5, 'reflection')
    [2, 1, 0, 1, 2]
    >>> window_indices(0, 2, 5, 'reflection')
    [1, 1, 0, 1, 0]
    """
    if causal:
        return [max(centre - distance, 0) for distance in reversed(range(num_frame))]
    indices = generate_frame_indices(centre, length, num_frame, padding)
    return [min(max(index, 0), length - 1) for index in indices]


def first_uses(plan: Sequence[Sequence[int]]) -> list[int]:
    """Returns the frame indices used by the windows, each once, in order of first use."""
    return list(dict.fromkeys(chain.from_iterable(plan)))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Returns ``count`` (at least 2) items evenly spaced from the first to the last, or all if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def gather(plan: Sequence[Sequence[int]], items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yields the items of each window; each item is kept from its first use to its last.

    Args:
        plan: The frame indices of each window.
        items: One item per frame index in :func:`first_uses` of the plan, in that order; consumed as needed.
    """
    arriving = zip(first_uses(plan), items, strict=True)
    last_use = {index: number for number, window in enumerate(plan) for index in window}
    held: dict[int, Item] = {}
    for number, window in enumerate(plan):
        while not held.keys() >= set(window):
            index, item = next(arriving)
            held[index] = item
        yield [held[index] for index in window]
        held = {index: item for index, item in held.items() if last_use[index] > number}


@dataclass(frozen=True)
class StreamFrame(Generic[Item]):
    """A frame of a stream that is split into windows."""

    item: Item  # what the windows consist of
    small: np.ndarray  # its thumbnail, used to detect cuts


def windows(frames: Iterable[StreamFrame[Item]], num_frame: int, causal: bool = False) -> Iterator[list[Item]]:
    """Yields the window of each frame, in order; at the ends of a shot, its first or last frame is repeated.

    Causal windows are yielded as soon as their last frame arrives; their cuts are detected from earlier frames alone.

    Args:
        frames: Any number of frames, consumed as needed.
        num_frame: Frames in a window.
        causal: Whether a window ends with its frame instead of surrounding it.
    """
    before, after = reach_of(num_frame, causal)
    look_ahead = after + (0 if causal else NEIGHBOURS)
    stream = _Stream(frames, keep=before + NEIGHBOURS + 1, look_ahead=0 if causal else NEIGHBOURS)
    number = 0
    while stream.reach(number + look_ahead) > number:
        first, last = stream.shot_around(number, before, after)
        yield [stream[min(max(number + offset, first), last)] for offset in range(-before, after + 1)]
        number += 1
        stream.forget(number - before)


def shots(frames: Iterable[StreamFrame[Item]], most: int) -> Iterator[list[Item]]:
    """Yields the frames of each shot, in order, in chunks that also end at each multiple of ``most`` in the stream.

    Whatever cuts came before, they end at the same frames, so a part of a stream may be restored without the rest.
    """
    stream = _Stream(frames, keep=NEIGHBOURS + 1, look_ahead=NEIGHBOURS)
    first = 0
    while stream.reach(first + most + NEIGHBOURS) > first:
        _, last = stream.shot_around(first, before=0, after=most - 1 - first % most)
        yield [stream[number] for number in range(first, last + 1)]
        first = last + 1
        stream.forget(first)


def lead_of_windows(number: int, num_frame: int, causal: bool) -> int:
    """Returns how many frames before a given one are needed to compute its window and all later ones."""
    return min(number, reach_of(num_frame, causal)[0] + NEIGHBOURS)


def lead_of_shots(number: int, most: int) -> int:
    """Returns how many frames before a given one are needed for its chunk and all later ones: they end at its start."""
    return min(number, number % most + round_up(NEIGHBOURS, most))


class _Stream(Generic[Item]):
    """Buffer of the frames around the current one, by number, and the differences between consecutive ones.

    Of the differences, ``keep`` earlier ones are kept for comparison, and ``look_ahead`` later ones are compared.
    """

    def __init__(self, frames: Iterable[StreamFrame[Item]], keep: int, look_ahead: int) -> None:
        self.frames = iter(frames)
        self.keep = keep
        self.look_ahead = look_ahead
        self.items: dict[int, Item] = {}
        self.changes: dict[int, float] = {}  # from a frame to the next
        self.small: np.ndarray | None = None
        self.count = 0

    def __getitem__(self, number: int) -> Item:
        return self.items[number]

    def reach(self, number: int) -> int:
        """Reads frames up to this number, or to the end; returns how many have been read in total."""
        while self.count <= number:
            frame = next(self.frames, None)
            if frame is None:
                break
            if self.small is not None:
                self.changes[self.count - 1] = change_of(self.small, frame.small)
            self.small = frame.small
            self.items[self.count] = frame.item
            self.count += 1
        return self.count

    def shot_around(self, number: int, before: int, after: int) -> tuple[int, int]:
        """Returns the first and last frame of a frame's shot, limited to its window."""
        first = last = number
        while first > max(0, number - before) and not self._cut_after(first - 1):
            first -= 1
        while last < min(self.count - 1, number + after) and not self._cut_after(last):
            last += 1
        return first, last

    def _cut_after(self, number: int) -> bool:
        around = range(number - NEIGHBOURS, number + self.look_ahead + 1)
        return is_cut(self.changes[number], [self.changes[n] for n in around if n != number and n in self.changes])

    def forget(self, number: int) -> None:
        """Drops frames before this one, and differences that are no longer needed for comparison."""
        for old in [n for n in self.items if n < number]:
            del self.items[old]
        for old in [n for n in self.changes if n < number - self.keep]:
            del self.changes[old]
