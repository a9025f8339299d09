"""Decodes a video stream into upright frames with timestamps, and replaces those that cannot be decoded."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video import VideoStream

from dblr_plugin.video.clock import Clock
from dblr_plugin.video.containers import refuse_disk_error

__all__ = ['Decoder', 'Orientation', 'TimedFrame']

_log = logging.getLogger(__name__)

TimedFrame = tuple[int, av.VideoFrame | None]  # pts and frame; None if the previous frame replaces it

# A packet without a frame is not necessarily a loss: it may be the second field of an interlaced frame (half a frame
# later), or a hidden reference frame (close to another). A lost frame is a full step away from both its neighbours.
_LOSS_DISTANCE = 0.6

# Codecs whose frames AVI, which has no pts, stores in decoding order: FFmpeg guesses pts in that order too.
_GUESSED = ('avi', ('h264', 'hevc'))

# Seconds by which time goes back where a file of one clock is followed by another, rather than in a damaged one.
_JUMP = Fraction(1, 10)

# Side data that FFmpeg 8 attaches to frames and PyAV 18 has no names for: the second view of spatial video, and the
# Exif of motion JPEG, among others.
_NEWER = {28: 'LCEVC', 29: 'VIEW_ID', 30: 'REFERENCE_DISPLAYS', 31: 'EXIF'}


def _newer_type(cls: type[Type], value: int) -> Type:
    """Returns a type that PyAV does not know; otherwise no side data of such a frame can be read."""
    found = object.__new__(cls)
    found._name_, found._value_ = _NEWER.get(value, f'TYPE_{value}'), value
    return found


Type._missing_ = classmethod(_newer_type)


class Decoder:
    """Decodes a stream from its container's current position, in presentation order.

    Attributes:
        undecodable_start: Number of frames before the first that could be decoded.
        cut_off: Whether the file could not be read to its end.
        squeezed: The pts after which frames follow with earlier ones, which are shown one unit apart.
        clock: Makes the file's timestamps continuous; all timestamps refer to it.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, rate: Fraction) -> None:
        self._container, self._stream = container, stream
        self._step = 1 / rate / stream.time_base
        self._sent: list[int] = []  # heap of the pts whose frames are still to come; as long as the codec's delay
        self._last: int | None = None
        name, codecs = _GUESSED
        self._is_guessed = container.format.name == name and stream.codec_context.name in codecs
        self._delay: int | None = None  # dts minus pts of the first frame, if pts are guessed
        self.clock = Clock(container)
        self._lost: set[int] = set()  # pts of frames that could not be decoded
        self.undecodable_start = 0
        self.cut_off = False
        self.squeezed: int | None = None

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yields pts and frames, pts increasing; raises DBLRError if the disk stops giving the file."""
        for frame in self._frames():
            if self._is_guessed:
                self._put_in_order(frame)
            if frame.pts in self._lost:
                continue  # damaged streams may be out of order; the previous frame already replaces this one
            pts = self._time(frame)
            yield from self._lost_before(pts)
            self._last = pts
            yield pts, frame
        yield from self._lost_before(None)

    def _frames(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            if packet.pts is not None and not packet.is_discard:
                heapq.heappush(self._sent, packet.pts)
            try:
                yield from self._decoded(packet)
            except av.error.FFmpegError:
                continue  # its pts stays in the heap, and so counts as lost
        yield from self._flushed()

    def _put_in_order(self, frame: av.VideoFrame) -> None:
        """Replaces a frame's guessed pts by its dts, which follow its order; frames left in the decoder have none."""
        if frame.dts is not None and frame.pts is not None:
            self._delay = frame.dts - frame.pts if self._delay is None else self._delay
            frame.pts = frame.dts - self._delay
        elif self._sent:
            frame.pts = self._sent[0]

    def _decoded(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return self._stream.decode(packet)
        except av.error.BlockingIOError:  # after damage, VP9 without threads accepts no data until it is flushed
            self._stream.codec_context.flush_buffers()
            return self._stream.decode(packet)

    def _packets(self) -> Iterator[av.Packet]:
        packets = self._container.demux(self.clock.streams or self._stream)
        position = 0
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                refuse_disk_error(self._container, error, position)
                self.cut_off = True
                return
            if packet is None:
                return
            if packet.size:
                position = packet.pos or 0
                self.clock.carry_on(packet)
                if packet.stream.index == self._stream.index:
                    yield packet

    def _flushed(self) -> Iterator[av.VideoFrame]:
        """Flushes the decoder; an error concerns one frame, and the next call returns those after it."""
        while True:
            try:
                yield from self._stream.decode(None)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                continue

    def _time(self, frame: av.VideoFrame) -> int:
        """Returns a frame's pts, or the best substitute where it is missing or goes backwards."""
        pts = frame.pts if frame.pts is not None else frame.dts
        if self._last is None:
            return pts or 0
        if pts is None:
            return self._last + max(1, round(self._step))
        if self.squeezed is None and pts < self._last - _JUMP / self._stream.time_base:
            self.squeezed = self._last
        return max(pts, self._last + 1)

    def _lost_before(self, pts: int | None) -> Iterator[tuple[int, None]]:
        """Yields the pts before ``pts``, or up to the end, of packets that gave no frame."""
        while self._sent and (pts is None or self._sent[0] <= pts):
            time = heapq.heappop(self._sent)
            if time == pts:
                continue
            if self._last is None:  # left over from a cut; no player shows them
                self.undecodable_start += 1
                continue
            if time - self._last >= _LOSS_DISTANCE * self._step and (
                pts is None or pts - time >= _LOSS_DISTANCE * self._step
            ):
                self._lost.add(time)
                self._last = time
                yield time, None


@dataclass(frozen=True)
class Orientation:
    """A transposition, then flips: together the eight axis-aligned orientations of a frame.

    Attributes:
        transposed: Whether rows become columns.
        mirrored: Whether left and right are then swapped.
        flipped: Whether top and bottom are then swapped.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @classmethod
    def of(cls, frame: VideoFrame, where: str) -> Orientation:
        """Returns how to rotate and flip a decoded frame.

        The matrix maps a pixel (x, y) to (a x + c y, b x + d y). Angles other than quarter turns are left alone.
        """
        data = frame.side_data.get('DISPLAYMATRIX')
        if data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
        if not (b or c):
            return cls(mirrored=a < 0, flipped=d < 0)
        if not (a or d):
            return cls(transposed=True, mirrored=c < 0, flipped=b < 0)
        _log.warning(
            '%s is to be shown at an angle that is not a multiple of 90 degrees; its frames are not rotated', where
        )
        return cls()

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels (h, w, 3) turned upright: (w, h, 3) if transposed."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        if self.flipped:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)
