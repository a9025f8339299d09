"""Writes videos in segments, then joins these with the source's timestamps, sound and subtitles."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec import Codec
from av.codec.context import CodecContext, Flags
from av.container import OutputContainer
from av.format import Flags as FormatFlags

from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.files import REFUSALS, partial_of, write_fault
from dblr_plugin.video.colour_tags import FULL, RGB_MATRIX, FrameMaker, with_light
from dblr_plugin.video.containers import ANY_TAGS
from dblr_plugin.video.copied_streams import CopiedStreams
from dblr_plugin.video.encoders import FORMATS, choose_encoder, choose_encoding
from dblr_plugin.video.frames import Extent, Frame
from dblr_plugin.video.matroska import write_display_size
from dblr_plugin.video.settings import DEFAULT, EncoderSettings
from dblr_plugin.video.unfinished import PICTURES, Existing, KeptPacket, Segments, Unfinished
from dblr_plugin.video.video_source import StreamInfo

__all__ = ['VideoSink']

_log = logging.getLogger(__name__)

# How far a frame may be off a constant frame rate, in frames: Matroska's timestamps are in milliseconds.
_CONSTANT_TOLERANCE = Fraction(1, 4)

# Frames by which an encoder's dts may precede the pts, at most.
_FURTHEST_REORDERING = 100

# Minimum timescale (units per second) in which MP4 stores when streams begin: finer than a sample of sound.
_MOVIE_TIMESCALE = 90000


class VideoSink:
    """Encodes frames into a video file.

    MP4 and MOV keep the source's timestamps exactly, Matroska and WebM to the millisecond, their unit. Only MP4 can
    begin before 0, as AAC sound does by 21 ms; in the others video and sound are shifted together by that amount.

    Until the video is complete, its segments are kept in a hidden folder beside it, from which it can be resumed.

    Args:
        path: The output; its suffix selects the container.
        info: What to keep of the source.
        encoder: How to encode it.
        existing: What to do about an existing output.
        settings: What must match for an output to be resumed, serialisable as JSON.

    Attributes:
        done: Number of frames that an earlier run left; :meth:`write` continues after them.

    Raises:
        DBLRError: The output cannot be created: its folder or encoder is unusable, or the encoder does not fit the
            container.
        AlreadyComplete: The output to resume is already complete.
    """

    def __init__(
        self,
        path: Path,
        info: StreamInfo,
        encoder: EncoderSettings = DEFAULT,
        existing: Existing = 'replace',
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self._info = path, info
        is_there = path.exists()
        if info.copied is not None and is_there and os.path.samefile(path, info.copied):
            raise DBLRError(f'{path} is the input; give another output')
        self._settings = encoder
        self._encoder = choose_encoder(path, encoder, info.bits > 8)
        self._unfinished = Unfinished(partial_of(path), path, existing, settings, is_there)
        self._partial = self._unfinished.folder / f'film{path.suffix}'
        self._container: OutputContainer | None = None
        self._context: CodecContext | None = None  # of the segment being encoded
        self._copied: CopiedStreams | None = None
        self._in_segment = self._written = 0
        self._durations: dict[int, int] = {}  # by tick, of the frames that are still in the encoder
        self._failed = self._complete = False
        try:
            self._go_on()
        except BaseException:
            self._unfinished.release()
            raise

    def write(self, picture: Frame) -> None:
        """See :class:`Sink`."""
        with self._raising_failure():
            if self._container is None:
                self._begin(picture.pixels.shape[:2], picture.pixels.dtype == np.uint16)
            self._encode(picture)

    def finish(self) -> None:
        """See :class:`Sink`."""
        if self._container is None:
            self._unfinished.abandon(keep=False)
            raise DBLRError(f'{self.path}: there was no frame to write')
        with self._raising_failure():
            if self._context is not None:
                self._end_segment()
            self._join(whole=True)
            self._close()
        self._unfinished.remove()

    def extent(self) -> Extent:
        """See :class:`Sink`."""
        first = self._segments.first or 0
        return Extent(self._written, (self._segments.end - first) * self._encoding.time_base)

    def abandon(self) -> bool:
        """See :class:`Sink`; complete segments are kept for resuming."""
        if self._container is not None and not self._failed and not self._complete:
            with suppress(DBLRError), self._raising_failure():  # the failure that ended the job is already reported
                if self._context is not None:
                    self._keep(self._context.encode(None))
                self._join(whole=False)
                self._close()
        if self._container is not None and not self._complete:
            with suppress(av.error.FFmpegError):  # closing finalises the file, which is what just failed
                self._container.close()
            if self._copied is not None:
                self._copied.close()
            self._partial.unlink(missing_ok=True)
        self._segments.close()
        if self._segments.pictures and not self._complete:
            _log.warning('%s: kept for --resume: %s', self.path, counted(self._segments.pictures, 'frame'))
        self._unfinished.abandon(keep=self._complete or self._segments.pictures > 0)
        return self._complete

    def _go_on(self) -> None:
        """Resumes from what an earlier run left."""
        self._segments = Segments(self._unfinished.folder)
        self.done = self._segments.pictures
        self._last_tick = self._segments.last
        if self.done:
            with self._raising_failure():
                self._begin(self._segments.size, self._segments.high_bit_depth)

    def _begin(self, size: tuple[int, int], high_bit_depth: bool) -> None:
        """Opens the video for frames of this size (h, w) and writes its header, which shows what it cannot hold."""
        self._encoding = choose_encoding(self.path, self._encoder, self._info, size, high_bit_depth, self._settings)
        if self._encoding.constant:
            self._info = replace(self._info, origin=self._fitting_origin())
        self._size, self._deep = size, high_bit_depth
        self._tags = self._encoding.tags(self._info.colour.at_height(size[0]))
        self._maker = FrameMaker(self._encoding.pixel_format, self._tags, self._encoding.siting)
        format_name = FORMATS[self.path.suffix.lower()]
        if self._info.copied is not None:
            self._copied = CopiedStreams(self._info, self.path, format_name)
        options = self._muxing(format_name)
        self._container = av.open(
            f'file:{self._partial}', 'w', format=format_name, container_options=options, **ANY_TAGS
        )
        self._options = with_light(self._encoding.codec, self._encoding.options, self._info.light, self.path)
        self._stream = self._container.add_stream(
            self._encoding.codec, self._info.rate, options=self._options, time_base=self._encoding.time_base
        )
        self._describe(self._stream.codec_context)
        if self._copied is not None:
            self._copied.add_to(self._container)
            self._copied.describe(self._stream)
        self._container.start_encoding()
        if self._copied is not None:
            self._copied.write_covers()

    def _fitting_origin(self) -> Fraction:
        """Returns a time that becomes 0, so that the first frame fits a constant rate; sound is shifted as much."""
        origin, step = self._info.origin, self._encoding.time_base
        steps = (self._info.first - origin) / step
        if abs(steps - round(steps)) <= _CONSTANT_TOLERANCE:
            return origin
        return self._info.first - math.ceil(steps) * step

    def _muxing(self, format_name: str) -> dict[str, str]:
        """Returns muxer options that keep MP4 from rounding stream starts to milliseconds, and from dropping tags."""
        if format_name not in ('mp4', 'mov'):
            return {}
        scale = self._encoding.time_base.denominator
        own_names = self._copied is not None and self._copied.has_own_names
        flags = {'movflags': 'use_metadata_tags'} if own_names else {}
        return flags | {'movie_timescale': str(scale * max(1, _MOVIE_TIMESCALE // scale))}

    def _new_context(self) -> CodecContext:
        """Returns an encoder with the parameters that are in the video's header."""
        context = Codec(self._encoding.codec, 'w').create('video')
        context.bit_rate, context.bit_rate_tolerance = 0, 128000  # PyAV's defaults for streams
        context.time_base, context.framerate = self._encoding.time_base, self._info.rate
        context.options = self._options
        if self._container.format.flags & FormatFlags.global_header.value:
            context.flags |= Flags.global_header.value
        self._describe(context)
        return context

    def _describe(self, context: CodecContext) -> None:
        """Sets an encoder's frame size, pixel format, pixel aspect ratio and colours."""
        context.height, context.width = self._size
        context.pix_fmt = self._encoding.pixel_format
        context.sample_aspect_ratio = self._info.aspect
        is_rgb = context.format.is_rgb
        context.colorspace = RGB_MATRIX if is_rgb else self._tags.matrix
        context.color_range = FULL if is_rgb else self._tags.range
        context.options = context.options | {'chroma_sample_location': self._encoding.siting}
        context.color_primaries, context.color_trc = self._tags.primaries, self._tags.transfer
        if self._encoding.codec == 'libx265' and self._container.format.name in ('mp4', 'mov'):
            context.codec_tag = 'hvc1'  # Apple's players do not open FFmpeg's default, hev1

    def _encode(self, picture: Frame) -> None:
        tick = self._place(picture)
        if self._context is None:
            self._context = self._new_context()
            self._segments.begin(self._size, self._deep)
        frame = self._maker.make(picture.pixels)
        frame.pts, frame.time_base = tick, self._encoding.time_base
        self._durations[tick] = frame.duration = self._ticks_shown(picture)
        self._keep(self._context.encode(frame))
        self._last_tick = tick
        self._in_segment += 1
        if self._in_segment == PICTURES:
            self._end_segment()

    def _keep(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._segments.add(packet)

    def _end_segment(self) -> None:
        self._keep(self._context.encode(None))
        self._segments.seal(self._in_segment)
        self._context, self._in_segment = None, 0

    def _ticks_shown(self, picture: Frame) -> int:
        """Returns how long a frame is shown, in units of the output; only the last frame's duration counts."""
        if self._encoding.constant or picture.duration is None:
            return max(1, round(1 / self._info.rate / self._encoding.time_base))
        return max(1, round(picture.duration * self._info.time_base / self._encoding.time_base))

    def _place(self, picture: Frame) -> int:
        """Returns a frame's pts in the output; raises DBLRError if it does not fit a required constant frame rate."""
        if picture.pts is None:
            return 0 if self._last_tick is None else self._last_tick + 1
        time = picture.pts * self._info.time_base
        exact = (time - self._info.origin) / self._encoding.time_base
        tick = math.floor(exact + Fraction(1, 2))  # round() would take every other half to the same even number
        if self._encoding.constant and (abs(exact - tick) > _CONSTANT_TOLERANCE or tick == self._last_tick):
            place = float(time - self._info.begin)
            raise DBLRError(
                f'the encoder {self._encoding.codec} supports only a constant frame rate, and frame {picture.name} at '
                f'{place:.3f} s does not fit {self._info.rate} frames per second; use libx264'
            )
        return tick

    def _join(self, whole: bool) -> None:
        """Muxes all packets, with sound and subtitles up to the last frame, or to their end if ``whole``."""
        furthest = _FURTHEST_REORDERING / self._info.rate / self._encoding.time_base
        first_dts = last_dts = latest = None
        for kept, following in pairwise(chain(self._segments.packets(), [None])):
            # x265 gives random dts to videos of one or two frames; in longer ones, dts collide where segments meet
            dts = kept.dts
            least = kept.pts - furthest if last_dts is None else last_dts + 1
            if dts is None or not least <= dts <= kept.pts:
                dts = kept.pts if last_dts is None else min(kept.pts, last_dts + 1)
            last_dts, first_dts = dts, dts if first_dts is None else first_dts
            latest = kept.pts if latest is None else max(latest, kept.pts)
            if self._copied is not None:  # sound first: the muxer interleaves both
                self._copied.copy_until(latest * self._encoding.time_base + self._info.origin)
            packet = self._packet(kept, dts)
            if following is None and self._container.format.name in ('mp4', 'mov'):
                # the packet decoded last has to last until the video ends: MP4 adds up durations in decoding order
                packet.duration = max(1, self._segments.end - self._segments.first - (dts - first_dts))
            self._container.mux(packet)
            self._written += 1
        if self._copied is not None:
            if whole:
                self._copied.copy_until(None)
            self._copied.finish()

    def _packet(self, kept: KeptPacket, dts: int) -> av.Packet:
        packet = av.Packet(kept.data)
        packet.stream, packet.time_base = self._stream, self._encoding.time_base
        packet.pts, packet.dts, packet.duration, packet.is_keyframe = kept.pts, dts, kept.duration, kept.is_key
        return packet

    def _close(self) -> None:
        """Completes the file and moves it to its final name."""
        self._container.close()
        if self._copied is not None:
            self._copied.warn_lost_tags(self._partial)
            self._copied.close()
        self._write_aspect()
        with open(self._partial, 'rb') as file:
            os.fsync(file.fileno())  # before its segments, which survive power cuts, are removed
        os.replace(self._partial, self.path)
        self._complete = True

    def _write_aspect(self) -> None:
        """Writes the pixel aspect ratio into Matroska, where PyAV does not; MP4 and H.264 streams hold it anyway."""
        if self._info.aspect == 1 or self._container.format.name not in ('matroska', 'webm'):
            return
        with open(self._partial, 'r+b') as file:
            if not write_display_size(file, self._info.aspect):
                text = '%s: the pixel aspect ratio, %s, is left out; write .mp4 to keep it'
                _log.warning(text, self.path, self._info.aspect)

    @contextmanager
    def _raising_failure(self) -> Iterator[None]:
        """Turns errors from the disk or FFmpeg into a DBLRError."""
        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._failed = True
            if getattr(error, 'errno', None) in REFUSALS:
                raise write_fault(self.path, error) from error
            reason = getattr(error, 'strerror', None) or error
            raise DBLRError(f'{self.path} could not be written ({reason}); try another encoder or container') from error
