"""Makes time continuous where a video's clock restarts or jumps, and finds gaps."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.format import Flags

__all__ = ['Clock', 'Gaps']

# Seconds, as in ffmpeg: what decodes so much earlier than what came before has another clock, and what comes so much
# later has one too. Between the two are jitter and pauses.
_BACK, _AHEAD = Fraction(1, 10), Fraction(10)

# Something is missing where the next comes so many steps late, in a stream that is else so regular.
_LATE, _REGULAR_SHARE, _JITTER = Fraction(7, 4), 0.9, Fraction(1, 4)

_LISTED = 5


class Clock:
    """Gives the packets of a file one clock that goes on, whatever the clocks of its parts say.

    Transport and program streams may be joined from parts with clocks of their own. Where a part begins, the clock
    goes on from the end of picture and sound so far, whichever is later. All readers of a file that hand over all of
    its pictures and sound, from its beginning, get the same times.

    Args:
        container: The file. Formats whose clock is one by definition are left alone.

    Attributes:
        streams: Whose packets :meth:`carry_on` has to see, in the file's order; empty where none need be.
        joints: When later parts begin, in seconds of the clock carried on.
    """

    def __init__(self, container: InputContainer) -> None:
        restarts = container.format.flags & Flags.ts_discont.value
        self.streams = [*container.streams.video, *container.streams.audio] if restarts else []
        self.joints: list[Fraction] = []
        self._shifts = [Fraction(0)]  # of each part
        self._part: dict[int, int] = {}  # by stream, in which the last packet was
        self._last: dict[int, Fraction] = {}  # by stream, when it was due
        self._decoded: dict[int, Fraction] = {}  # by stream, until when it was decoded
        self._delay: dict[int, Fraction] = {}  # by stream, from when it is decoded to when it is shown
        self._now: Fraction | None = None  # when the last packet of any stream ended
        self._end: Fraction | None = None  # when the latest ended

    def carry_on(self, packet: av.Packet) -> None:
        """Moves a packet's times to the clock that goes on."""
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
        """Notes until when there are pictures and sound; program streams do not say of each picture when it is due."""
        duration = (packet.duration or 0) * packet.time_base
        if packet.dts is not None or index not in self._decoded:
            due = (packet.dts or shown or 0) * packet.time_base + self._shifts[self._part.get(index, 0)]
        else:
            due = self._decoded[index]
        self._decoded[index] = due + duration
        self._now = due + duration + self._delay.get(index, 0)
        self._end = self._now if self._end is None else max(self._end, self._now)

    def _find_part(self, index: int, time: Fraction, shown: Fraction) -> None:
        """Decides which part a packet is in that is decoded at ``time``: streams come to a joint one by one."""
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
    """Finds where a stream of regular steps has a hole, which its damage left, and not its own timing.

    Args:
        step: Seconds from one picture, or packet of sound, to the next.
        joints: Where parts of the file meet, in seconds; nothing is missing there. Others may be added.
        least: Seconds that have to be missing.
    """

    step: Fraction
    joints: list[Fraction]
    least: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        self._last: Fraction | None = None
        self._steps = self._regular = 0
        self._holes: list[tuple[Fraction, Fraction]] = []

    def see(self, time: Fraction) -> None:
        """Takes the next time, in seconds."""
        if self._last is not None and not any(self._last < joint <= time for joint in self.joints):
            self._steps += 1
            self._regular += abs(time - self._last - self.step) <= _JITTER * self.step
            self._look_at(time - self._last)
        self._last = time

    def see_end(self, time: Fraction) -> None:
        """Takes the time at which the stream should end; one picture, or packet, alone may last as long as it likes."""
        if self._last is not None and self._steps:
            self._look_at(time - self._last)

    def _look_at(self, interval: Fraction) -> None:
        if interval > _LATE * self.step and interval - self.step >= self.least:
            self._holes.append((self._last + self.step, interval - self.step))

    def described(self, beginning: Fraction, longest: Fraction = Fraction(0)) -> str:
        """Returns place and length of the holes, counted from ``beginning``; nothing for none, or an uneven rhythm.

        Intervals as long as ``longest``, the most seconds that the file says of a picture, are no holes.
        """
        holes = [(time, length) for time, length in self._holes if length + self.step > (1 + _JITTER) * longest]
        if not holes or self._regular < _REGULAR_SHARE * self._steps:
            return ''
        listed = [f'{float(length):.2f} s at {float(time - beginning):.2f} s' for time, length in holes[:_LISTED]]
        rest = len(holes) - _LISTED
        total = float(sum(length for _, length in holes))
        return ', '.join(listed) + (f', and {rest} more, {total:.2f} s in all' if rest > 0 else '')
