"""Decodes the frames of a video stream with their times, upright, and replaces those that cannot be decoded."""

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
from av.video import VideoStream

from dblr_plugin.video.clock import Clock

__all__ = ['Decoder', 'Orientation', 'TimedFrame']

_log = logging.getLogger(__name__)

TimedFrame = tuple[int, av.VideoFrame | None]  # pts and frame; None where the frame before stands in

# A packet of its own without a frame of its own is no loss: the second field of an interlaced picture (half a picture
# later), or a hidden reference picture (next to another). A lost picture is a whole step from both its neighbours.
_LOSS_DISTANCE = 0.6


class Decoder:
    """Decodes a stream from where its container stands, in order of presentation.

    Attributes:
        lost: Numbers and times of the pictures that could not be decoded.
        undecodable_start: How many came before the first that could be decoded.
        damaged: How many were decoded from damaged data.
        cut_off: Whether the file could not be read to its end.
        clock: Carries the file's clock on; times are of this one.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, rate: Fraction) -> None:
        self._container, self._stream = container, stream
        self._step = 1 / rate / stream.time_base
        self._sent: list[int] = []  # a heap of the times whose frames are still to come; as long as the codec's delay
        self._last: int | None = None
        self.clock = Clock(container)
        self.lost: list[int] = []
        self.undecodable_start = 0
        self.damaged = 0
        self.cut_off = False

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yields moments, pts increasing."""
        for frame in self._frames():
            if frame.pts in self.lost:
                continue  # a damaged stream came out of order; the picture before stands in for this one already
            pts = self._time(frame)
            yield from self._lost_before(pts)
            self.damaged += frame.is_corrupt
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
                continue  # its time stays in the heap, and so becomes a loss
        yield from self._flushed()

    def _decoded(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            return self._stream.decode(packet)
        except av.error.BlockingIOError:  # VP9 without threads takes no more after damage, until it is cleared
            self._stream.codec_context.flush_buffers()
            return self._stream.decode(packet)

    def _packets(self) -> Iterator[av.Packet]:
        packets = self._container.demux(self.clock.streams or self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                self.cut_off = True
                return
            if packet is None:
                return
            if packet.size:
                self.clock.carry_on(packet)
                if packet.stream.index == self._stream.index:
                    yield packet

    def _flushed(self) -> Iterator[av.VideoFrame]:
        """Yields what the decoder still holds; an error concerns one frame, and the next call gives those after it."""
        while True:
            try:
                yield from self._stream.decode(None)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                continue

    def _time(self, frame: av.VideoFrame) -> int:
        """Returns a frame's pts, or its best replacement where the stream has none or goes backwards."""
        pts = frame.pts if frame.pts is not None else frame.dts
        if self._last is None:
            return pts or 0
        if pts is None:
            return self._last + max(1, round(self._step))
        return max(pts, self._last + 1)

    def _lost_before(self, pts: int | None) -> Iterator[tuple[int, None]]:
        """Yields the times before ``pts``, or to the end, for which a packet came and no frame."""
        while self._sent and (pts is None or self._sent[0] <= pts):
            time = heapq.heappop(self._sent)
            if time == pts:
                continue
            if self._last is None:  # leftovers of a cut, which no player shows
                self.undecodable_start += 1
                continue
            if time - self._last >= _LOSS_DISTANCE * self._step and (
                pts is None or pts - time >= _LOSS_DISTANCE * self._step
            ):
                self.lost.append(time)
                self._last = time
                yield time, None


@dataclass(frozen=True)
class Orientation:
    """A transposition, then flips: together the eight ways to lay a picture on its sides.

    Attributes:
        transposed: Whether rows become columns.
        mirrored: Whether left and right are then exchanged.
        flipped: Whether top and bottom are then exchanged.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @classmethod
    def of(cls, frame: VideoFrame, where: str) -> Orientation:
        """Returns how a decoded frame is to be turned.

        The matrix maps a pixel (x, y) to (a x + c y, b x + d y). Other angles than quarter turns are left alone.
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
        """Returns pixels (h, w, 3) turned upright: (w, h, 3) where transposed."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        if self.flipped:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)
