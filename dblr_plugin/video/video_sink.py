"""Videos, out: under a hidden name until complete, with the source's times, colours, sound and subtitles."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer

from dblr_plugin.errors import DBLRError
from dblr_plugin.video.colour_tags import FULL, RGB_MATRIX, FrameMaker
from dblr_plugin.video.copied_streams import CopiedStreams
from dblr_plugin.video.encoders import FORMATS, choose_encoder, choose_encoding
from dblr_plugin.video.frames import Extent, Frame
from dblr_plugin.video.hdr import with_light
from dblr_plugin.video.matroska import write_display_size
from dblr_plugin.video.video_source import StreamInfo

__all__ = ['VideoSink']

_log = logging.getLogger(__name__)

# How far a picture may lie from its place in a constant frame rate, in pictures: Matroska's times have milliseconds.
_CONSTANT_TOLERANCE = Fraction(1, 4)

# Pictures by which an encoder decodes a picture ahead of its time, at most.
_FURTHEST_REORDERING = 100

# Units of a second in which MP4 says when a stream begins, at least: for sound, less than a sample.
_MOVIE_TIMESCALE = 90000

_REFUSED_BY_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class VideoSink:
    """Encodes pictures into a video file.

    MP4 and MOV keep the source's times exactly, Matroska and WebM to the millisecond, their unit. AVI has a constant
    frame rate only: pictures that have none are refused. MP4 alone can begin before 0, as AAC sound does by 21 ms; in
    the others picture and sound are moved together by that.

    Args:
        path: The output; its suffix decides the container.
        traits: What to keep of the source.
        deep: Whether the source has more than 8 bits, which decides the default encoder.
        encoder: FFmpeg's name; H.264 by default, VP9 for WebM, MPEG-4 for AVI.
        quality: The encoder's own scale, lower is better; hardly to be told from the original by default.
        lossless: Whether the encoder may lose nothing; to RGB where it has that, otherwise to 4:4:4.
        overwrite: Whether an older output may be replaced.

    Raises:
        DBLRError: The output cannot be had: its folder, its encoder, or the two together.
    """

    def __init__(
        self,
        path: Path,
        info: StreamInfo,
        high_bit_depth: bool,
        encoder: str | None = None,
        quality: float | None = None,
        lossless: bool = False,
        overwrite: bool = True,
    ) -> None:
        self.path, self._traits = path, info
        if path.exists() and not overwrite:
            raise DBLRError(f'{path} exists; remove it, or give another output')
        if info.copied is not None and path.exists() and os.path.samefile(path, info.copied):
            raise DBLRError(f'{path} is the input; give another output')
        self._quality, self._lossless = quality, lossless
        self._encoder = choose_encoder(path, encoder, quality, lossless, high_bit_depth)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DBLRError(f'{path.parent} cannot be made ({error.strerror}); give another output') from error
        self._partial = path.with_name(f'.{path.stem}.partial{path.suffix}')
        self._container: OutputContainer | None = None
        self._copied: CopiedStreams | None = None
        self._last_tick: int | None = None
        self._first_dts: int | None = None
        self._last_dts: int | None = None
        self._first_tick, self._end_tick, self._written = 0, 0, 0
        self._durations: dict[int, int] = {}  # by tick, of the pictures that the encoder holds
        self._failed = self._flushed = self._complete = False

    def write(self, picture: Frame) -> None:
        """See :class:`Sink`."""
        with self._telling_failure():
            if self._container is None:
                self._begin(picture.pixels)
            self._encode(picture)

    def finish(self) -> None:
        """See :class:`Sink`."""
        if self._container is None:
            raise DBLRError(f'{self.path}: there was no picture to write')
        with self._telling_failure():
            self._flush()
            if self._copied is not None:
                self._copied.copy_until(None)
            self._close()

    def extent(self) -> Extent:
        """See :class:`Sink`."""
        return Extent(self._written, (self._end_tick - self._first_tick) * self._encoding.time_base)

    def abandon(self) -> bool:
        """See :class:`Sink`."""
        if self._container is not None and not self._failed and not self._complete:
            with suppress(DBLRError), self._telling_failure():  # the failure that ends the job has been told already
                self._flush()
                self._close()
        if self._container is not None and not self._complete:
            self._remove()
        return self._complete

    def _begin(self, pixels: np.ndarray) -> None:
        """Opens the file for pictures like this one, and writes its header."""
        size = pixels.shape[:2]
        high_bit_depth = pixels.dtype == np.uint16
        self._encoding = choose_encoding(
            self.path, self._encoder, self._traits, size, high_bit_depth, self._quality, self._lossless
        )
        self._tags = self._traits.colour.at_height(size[0])
        self._maker = FrameMaker(self._encoding.pixel_format, self._tags, self._encoding.siting)
        format_name = FORMATS[self.path.suffix.lower()]
        if self._traits.copied is not None:
            self._copied = CopiedStreams(self._traits, self.path, format_name)
        self._container = av.open(
            f'file:{self._partial}', 'w', format=format_name, container_options=self._muxing(format_name)
        )
        options = with_light(self._encoding.codec, self._encoding.options, self._traits.light, self.path)
        self._stream = self._container.add_stream(
            self._encoding.codec, self._traits.rate, options=options, time_base=self._encoding.time_base
        )
        self._describe(size, format_name)
        if self._copied is not None:
            self._copied.add_to(self._container)
            self._copied.describe(self._stream)
        self._container.start_encoding()
        if self._copied is not None:
            self._copied.write_covers()

    def _muxing(self, format_name: str) -> dict[str, str]:
        """Returns options that keep MP4 from rounding the time at which a stream begins to milliseconds."""
        if format_name not in ('mp4', 'mov'):
            return {}
        scale = self._encoding.time_base.denominator
        return {'movie_timescale': str(scale * max(1, _MOVIE_TIMESCALE // scale))}

    def _describe(self, size: tuple[int, int], format_name: str) -> None:
        """Tells the encoder what its pictures look like."""
        context = self._stream.codec_context
        context.height, context.width = size
        context.pix_fmt = self._encoding.pixel_format
        context.sample_aspect_ratio = self._traits.aspect
        is_rgb = context.format.is_rgb
        context.colorspace = RGB_MATRIX if is_rgb else self._tags.matrix
        context.color_range = FULL if is_rgb else self._tags.range
        context.options = context.options | {'chroma_sample_location': self._encoding.siting}
        context.color_primaries, context.color_trc = self._tags.primaries, self._tags.transfer
        if format_name == 'avi':
            context.max_b_frames = 0  # AVI has no place for the times that reordered pictures need
        if self._encoding.codec == 'libx265' and format_name in ('mp4', 'mov'):
            context.codec_tag = 'hvc1'  # Apple's players do not open FFmpeg's default, hev1

    def _encode(self, picture: Frame) -> None:
        time, tick = self._place(picture)
        frame = self._maker.make(picture.pixels)
        frame.pts, frame.time_base = tick, self._encoding.time_base
        # Sound first: it is due before the picture comes out of the encoder, and the container puts both in order.
        if self._copied is not None:
            self._copied.copy_until(time)
        if self._last_tick is None:
            self._first_tick = tick
        self._durations[tick] = frame.duration = self._ticks_shown(picture)
        self._end_tick = tick + frame.duration
        self._mux(self._stream.encode(frame))
        self._last_tick = tick

    def _ticks_shown(self, picture: Frame) -> int:
        """Returns how long a picture is shown, in the output's units; only the last one's counts."""
        if self._encoding.constant or picture.duration is None:
            return max(1, round(1 / self._traits.rate / self._encoding.time_base))
        return max(1, round(picture.duration * self._traits.time_base / self._encoding.time_base))

    def _place(self, picture: Frame) -> tuple[Fraction, int]:
        """Returns a picture's time in seconds of the source, and its pts in the output.

        Raises:
            DBLRError: A constant frame rate is needed, and the picture lies off it.
        """
        if picture.pts is None:
            tick = 0 if self._last_tick is None else self._last_tick + 1
            return tick * self._encoding.time_base, tick
        time = picture.pts * self._traits.time_base
        exact = (time - self._traits.origin) / self._encoding.time_base
        tick = round(exact)
        if self._encoding.constant and (abs(exact - tick) > _CONSTANT_TOLERANCE or tick == self._last_tick):
            place = float(time - self._traits.begin)
            raise DBLRError(
                f'{self.path} can have a constant frame rate only, and picture {picture.name} at {place:.3f} s '
                f'does not fit {self._traits.rate} pictures a second; write .mkv or .mp4 with libx264'
            )
        return time, tick

    def _mux(self, packets: Sequence[av.Packet]) -> None:
        """Hands the encoder's packets on.

        x265 gives random dts to the packets of a video of one or two pictures; they are put right.
        """
        furthest = _FURTHEST_REORDERING / self._traits.rate / self._encoding.time_base
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            least = packet.pts - furthest if self._last_dts is None else self._last_dts + 1
            if packet.dts is None or not least <= packet.dts <= packet.pts:
                packet.dts = packet.pts if self._last_dts is None else min(packet.pts, self._last_dts + 1)
            self._first_dts = packet.dts if self._first_dts is None else self._first_dts
            self._last_dts = packet.dts
            self._written += 1
            self._container.mux(packet)

    def _flush(self) -> None:
        if not self._flushed:
            self._flushed = True
            packets = self._stream.encode(None)
            self._mux(packets[:-1])
            if packets and self._container.format.name in ('mp4', 'mov'):
                self._lengthen(packets[-1])
            self._mux(packets[-1:])

    def _lengthen(self, last: av.Packet) -> None:
        """Has the packet that is decoded last go on until the video ends: MP4 adds up times of decoding."""
        if self._first_dts is not None and last.dts is not None:
            passed = max(last.dts, self._last_dts + 1) - self._first_dts
            self._durations[last.pts] = max(1, self._end_tick - self._first_tick - passed)

    def _close(self) -> None:
        """Completes the file and gives it its name."""
        self._container.close()
        self._release()
        self._write_aspect()
        os.replace(self._partial, self.path)
        self._complete = True

    def _write_aspect(self) -> None:
        """Writes the shape of pixels into Matroska, where PyAV does not; MP4 and streams of H.264 hold it anyway."""
        if self._traits.aspect == 1 or self._container.format.name not in ('matroska', 'webm'):
            return
        with open(self._partial, 'r+b') as file:
            if not write_display_size(file, self._traits.aspect):
                text = '%s: the shape of pixels, %s, is left out; write .mp4 to keep it'
                _log.warning(text, self.path, self._traits.aspect)

    def _remove(self) -> None:
        with suppress(av.error.FFmpegError):  # closing completes the file, which is what just failed
            self._container.close()
        self._release()
        self._partial.unlink(missing_ok=True)

    def _release(self) -> None:
        if self._copied is not None:
            self._copied.close()

    @contextmanager
    def _telling_failure(self) -> Iterator[None]:
        """Turns what the disk or FFmpeg refuses into a DBLRError."""
        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._failed = True
            if getattr(error, 'errno', None) in _REFUSED_BY_DISK:
                reason = f'{error.strerror}); make room on the disk, or give another output'
            else:
                reason = f'{getattr(error, "strerror", None) or error}); try another encoder or container'
            raise DBLRError(f'{self.path} could not be written ({reason}') from error
