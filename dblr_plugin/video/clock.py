"""Makes timestamps continuous where they restart or jump, and finds gaps."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.format import Flags

__all__ = ['Clock', 'Gaps']

# Seconds, as in ffmpeg: a dts that is this much earlier, or this much later, than the previous one belongs to another
# clock. Smaller differences are jitter and pauses.
_BACK, _AHEAD = Fraction(1, 10), Fraction(10)

# A gap is an interval of more than this many steps, in a stream in which this share of the steps is regular, to within
# this fraction of a step.
_LATE, _REGULAR_SHARE, _JITTER = Fraction(7, 4), 0.9, Fraction(1, 4)

_LISTED = 5


class Clock:
    """Gives a file's packets one continuous clock, even where its parts have clocks of their own.

    Transport and program streams may be joined from parts with separate clocks. Where a part begins, the clock
    continues from the end of the video and sound so far, whichever is later. All readers of a file that pass on all of
    its video and audio packets, from the beginning, get the same timestamps.

    Args:
        container: The file. Formats that have a single clock by definition are left unchanged.

    Attributes:
        streams: The streams whose packets :meth:`carry_on` has to see, in file order; empty if none need it.
        joints: When later parts begin, in seconds of the continuous clock.
    """

    def __init__(self, container: InputContainer) -> None:
        restarts = container.format.flags & Flags.ts_discont.value
        self.streams = [*container.streams.video, *container.streams.audio] if restarts else []
        self.joints: list[Fraction] = []
        self._shifts = [Fraction(0)]  # of each part
        self._part: dict[int, int] = {}  # by stream, of its last packet
        self._last: dict[int, Fraction] = {}  # by stream, dts of its last packet
        self._decoded: dict[int, Fraction] = {}  # by stream, end of its last packet in decoding time
        self._delay: dict[int, Fraction] = {}  # by stream, pts minus dts
        self._now: Fraction | None = None  # end of the last packet of any stream
        self._end: Fraction | None = None  # latest end of any packet

    def carry_on(self, packet: av.Packet) -> None:
        """Shifts a packet's timestamps to the continuous clock."""
        if not self.streams or not packet.time_base:
            return
        index = packet.stream.index
        ticks = packet.pts if packet.dts is None and packet.stream.type == 'audio' else packet.dts
        if packet.stream.type not in ('video', 'audio'):
            self._part[index] = len(self._shifts) - 1
        else:
            shown = packet.pts if packet.pts is not None else packet.dts
            if ticks is not None and shown is not None:
                self._find_part(index, ticks * packet.time_base, shown * packet.time_base)
                self._delay.setdefault(index, (shown - ticks) * packet.time_base)
            self._pass(index, shown, packet)
        shift = round(self._shifts[self._part.get(index, 0)] / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + shift
        packet.dts = None if packet.dts is None else packet.dts + shift

    def _pass(self, index: int, shown: int | None, packet: av.Packet) -> None:
        """Updates the end of video and sound so far; in program streams not every frame has a timestamp."""
        duration = (packet.duration or 0) * packet.time_base
        if packet.dts is not None or index not in self._decoded:
            due = (packet.dts or shown or 0) * packet.time_base + self._shifts[self._part.get(index, 0)]
        else:
            due = self._decoded[index]
        self._decoded[index] = due + duration
        self._now = due + duration + self._delay.get(index, 0)
        self._end = self._now if self._end is None else max(self._end, self._now)

    def _find_part(self, index: int, time: Fraction, shown: Fraction) -> None:
        """Determines the part of a packet with dts ``time``: streams reach a joint one after the other."""
        now = time if self._now is None else self._now
        earliest = self._last.get(index, now - _AHEAD) - _BACK
        parts = range(self._part.get(index, 0), len(self._shifts))
        fitting = [part for part in parts if earliest <= time + self._shifts[part] <= now + _AHEAD]
        if fitting:
            part = min(fitting, key=lambda part: abs(time + self._shifts[part] - now))
        else:
            part = len(self._shifts)
            self._shifts.append(self._end - shown)
            self.joints.append(self._end)
        self._part[index], self._last[index] = part, time + self._shifts[part]


@dataclass
class Gaps:
    """Finds gaps that damage left in a stream of regular steps, but not those of its own timing.

    Args:
        step: Seconds from one frame, or packet of sound, to the next.
        joints: Where parts of the file meet, in seconds; these are not gaps. More may be added later.
        least: The shortest gap to report, in seconds.
    """

    step: Fraction
    joints: list[Fraction]
    least: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        self._last: Fraction | None = None
        self._steps = self._regular = 0
        self._holes: list[tuple[Fraction, Fraction]] = []

    def see(self, time: Fraction) -> None:
        """Adds the next timestamp, in seconds."""
        # with no joint in between, of which hours of a stream that restarts have thousands, in order
        if self._last is not None and bisect_right(self.joints, self._last) >= bisect_right(self.joints, time):
            self._steps += 1
            self._regular += abs(time - self._last - self.step) <= _JITTER * self.step
            self._look_at(time - self._last)
        self._last = time

    def see_end(self, time: Fraction) -> None:
        """Adds the time at which the stream should end; ignored for a single frame or packet, whose length is free."""
        if self._last is not None and self._steps:
            self._look_at(time - self._last)

    def _look_at(self, interval: Fraction) -> None:
        if interval > _LATE * self.step and interval - self.step >= self.least:
            self._holes.append((self._last + self.step, interval - self.step))

    def described(self, beginning: Fraction, longest: Fraction = Fraction(0)) -> str:
        """Returns position and length of the gaps, counted from ``beginning``; empty for none, or for irregular timing.

        Intervals up to ``longest``, the longest duration in seconds that the file gives for a frame, are not gaps.
        """
        holes = [(time, length) for time, length in self._holes if length + self.step > (1 + _JITTER) * longest]
        if not holes or self._regular < _REGULAR_SHARE * self._steps:
            return ''
        listed = [f'{float(length):.2f} s at {float(time - beginning):.2f} s' for time, length in holes[:_LISTED]]
        rest = len(holes) - _LISTED
        total = float(sum(length for _, length in holes))
        return ', '.join(listed) + (f', and {rest} more, {total:.2f} s in all' if rest > 0 else '')
