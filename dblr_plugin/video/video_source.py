"""Reads videos: every frame upright, as RGB, with its timestamp."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.format import Flags
from av.video import VideoStream

from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.video.clock import Gaps
from dblr_plugin.video.colour_tags import LIMITED, RGB_MATRIX, ColourTags, Light, bits_of, to_rgb
from dblr_plugin.video.containers import (
    MATROSKA,
    SAY_DURATIONS,
    Complaints,
    announced_count,
    announced_end,
    beginning_of,
    has_whole_index,
    likely_count,
    open_container,
    require_main_stream,
    seek_before,
    track_end,
)
from dblr_plugin.video.decoding import Decoder, Orientation, TimedFrame
from dblr_plugin.video.frames import Extent, Frame, scaled_size, shrink
from dblr_plugin.video.matroska import reaches_its_end
from dblr_plugin.video.settings import described_part

__all__ = ['StreamInfo', 'VideoSource']

_log = logging.getLogger(__name__)

# A file counts as truncated if its last frame read lies more than this many frames before the end that it declares.
# For AVI, which declares a number of frames rather than a time, the limit is tighter.
_CUT_OFF = 4

# Data within the video stream that no encoder is given, by FFmpeg's name.
_SIDE_DATA = {
    'A53_CC': 'closed captions',
    'DOVI_METADATA': 'Dolby Vision',
    'DYNAMIC_HDR_PLUS': 'HDR10+',
    'DYNAMIC_HDR_VIVID': 'HDR Vivid',
    'SPHERICAL': '360 degree projection',
    'STEREO3D': 'stereoscopic layout',
    'ICC_PROFILE': 'ICC profile',
    'EXIF': 'Exif',
}

# Seconds to which MP4 rounds the end of a track.
_ROUNDING = Fraction(1, 100)


@dataclass(frozen=True)
class StreamInfo:
    """What an output needs to know about its source video.

    Attributes:
        time_base: The unit of ``Frame.pts``, in seconds.
        rate: Frames per second: nominal for DV and with a time code, which counts by it, otherwise on average.
        origin: The time in seconds that becomes 0 in the output: the source's beginning, or the first frame's time if
            only a part is read. A source that begins before 0 keeps its timestamps.
        begin: The time in seconds where the source begins; times shown to users count from here.
        first: The time in seconds of the first frame.
        start: The time in seconds where a part begins; None for the source's beginning, including sound before it.
        end: The time in seconds where the part ends; None for the source's end.
        aspect: The pixel aspect ratio, width to height, of upright frames.
        colour: The stream's colour tags.
        chroma: ``420``, ``422`` or ``444``.
        bits: The bit depth.
        light: The HDR10 metadata.
        copied: The file whose sound and subtitles are copied into the output.
    """

    time_base: Fraction
    rate: Fraction
    origin: Fraction = Fraction(0)
    begin: Fraction = Fraction(0)
    first: Fraction = Fraction(0)
    start: Fraction | None = None
    end: Fraction | None = None
    aspect: Fraction = Fraction(1)
    colour: ColourTags = ColourTags()
    chroma: str = '420'
    bits: int = 8
    light: Light = Light()
    copied: Path | None = None

    @classmethod
    def of_pictures(cls, rate: Fraction, bits: int) -> StreamInfo:
        """Returns the description of a sequence of full-range RGB images, shown at ``rate`` frames per second."""
        return cls(1 / rate, rate, colour=ColourTags(matrix=RGB_MATRIX, range=LIMITED), bits=bits)


class VideoSource:
    """The frames of a video file.

    A frame that cannot be decoded is replaced by the one before it, so that none is missing and sound stays in sync; a
    warning lists such frames once all have been read. A truncated file is read as far as possible, with a warning.

    Args:
        path: The file.
        start: Seconds after the video's beginning; earlier frames are skipped.
        end: Seconds after the video's beginning; frames from there on are not read.
        scale_down: The factor by which frames are shrunk.

    Raises:
        DBLRError: The file is missing, is not a video, or has no frame from ``start`` to ``end``; while its frames are
            read: it changes its frame size or bit depth, or the file itself has changed.
    """

    def __init__(
        self, path: Path, start: Fraction | None = None, end: Fraction | None = None, scale_down: float = 1
    ) -> None:
        self.path = path
        self._complaints = Complaints()
        weakref.finalize(self, self._complaints.close)  # in case the source is never closed
        with ExitStack() as opened:
            opened.callback(self._complaints.close)
            self._bytes = _size_of(path)
            self._container = open_container(path)
            opened.callback(self._close)
            self._open(start, end, scale_down)
            opened.pop_all()  # nothing failed, so all stays open

    def _open(self, start: Fraction | None, end: Fraction | None, scale_down: float) -> None:
        stream = require_main_stream(self._container, self.path)
        stream.thread_type = 'AUTO'
        self._codec = stream.codec_context.codec.name
        context = stream.codec_context  # holds the container's tags until the first frame is decoded
        self._said = ColourTags(context.colorspace, context.color_range, context.color_primaries, context.color_trc)
        self._open_decoder(context)
        rate = _rate_of(stream)
        begin = self._begin = beginning_of(self._container)
        self._start = None if start is None else begin + start
        self._end = None if end is None else begin + end
        self._time_base = Fraction(stream.time_base)
        is_indexed = has_whole_index(self._container, self.path)
        self.count = announced_count(stream) if is_indexed and start is None and end is None else None
        self.likely_count = self.count or likely_count(self._container, rate)
        self._announced_end = announced_end(self._container, stream, rate) if end is None else None
        self._whole = self._container.format.name == MATROSKA and reaches_its_end(self.path)
        self._track_end = track_end(stream) if is_indexed else None
        self._step = 1 / rate
        if self._start is not None:
            seek_before(self._container, self._start)
        self._decoder = Decoder(self._container, stream, rate)
        self._decoded = self._within(iter(self._decoder))
        first = next(self._decoded, None)
        if first is None:
            part = described_part(start, end, ' s')
            fix = f' {part}; change start or end' if part else '; give an intact copy'
            raise DBLRError(f'{self.path} has no frame that can be decoded{fix}')
        self._first_pts, self._first = first
        self._read, self._skipped, self._longest = 0, 0, 0
        self._begun = False
        self._side_data: set[str] = set()
        self._interlaced = False
        self._lost: list[int] = []  # pts of frames that could not be decoded
        self._corrupt = 0  # frames decoded from damaged data
        self._until = self._first_pts * self._time_base
        self._look_at(stream, self._first, scale_down)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        first_time = self._first_pts * self._time_base
        part_start = None if start is None else first_time
        self.info = StreamInfo(
            time_base=self._time_base,
            rate=rate,
            origin=begin if part_start is None else part_start,
            begin=begin,
            first=first_time,
            start=part_start,
            end=self._end,
            aspect=1 / aspect if self._orientation.transposed else aspect,
            colour=ColourTags.of(self._first, self._said),
            chroma=_chroma(self._first.format),
            bits=bits_of(self._first.format),
            light=Light.of(self._first),
            copied=self.path,
        )

    def _open_decoder(self, context: av.VideoCodecContext) -> None:
        """Opens the decoder, as one that cannot be opened returns the same error for every packet, and at the end."""
        try:
            context.open()
        except av.error.BlockingIOError:  # no more threads, which says nothing about the file
            raise
        except av.error.FFmpegError as error:
            raise DBLRError(
                f'{self.path}: the {self._codec} decoder does not start ({error.strerror}); give an intact copy'
            ) from error

    def skip(self, pictures: int) -> None:
        """See :class:`Source`."""
        self._skipped = pictures

    def __iter__(self) -> Iterator[Frame]:
        if self._begun:
            raise DBLRError(f'{self.path} has been read already; open it again')
        self._begun = True
        gaps = Gaps(self._step, self._decoder.clock.joints)
        moments = chain([(self._first_pts, self._first)], self._decoded, [None])
        for (pts, frame), following in pairwise(moments):
            if frame is None:
                self._lost.append(pts)
            else:
                shown, pixels = frame, None
                self._corrupt += frame.is_corrupt
                self._longest = max(self._longest, frame.duration or 0)
                self._side_data.update(data.type.name for data in frame.side_data)
                self._warn_interlaced(frame)
            duration = self._duration(pts, frame, None if following is None else following[0])
            self._until = (pts + duration) * self._time_base
            if self._read >= self._skipped:
                pixels = self._pixels(shown, pts) if pixels is None else pixels
                yield Frame(pixels, f'{self._read:08d}', pts, duration)
            self._read += 1
            gaps.see(pts * self._time_base)
        self._refuse_changed()
        if self._whole and self._announced_end is not None:
            gaps.see_end(self._announced_end)
        self._warn_damage(self._read, pts * self._time_base)
        self._warn_timing(gaps)
        if left_out := [name for kind, name in _SIDE_DATA.items() if kind in self._side_data]:
            _log.warning('%s: left out of the output: %s', self.path, ', '.join(left_out))

    @property
    def damaged(self) -> int:
        """See :class:`Source`."""
        return len(self._lost) + self._corrupt

    def extent(self) -> Extent:
        """See :class:`Source`."""
        first = self._first_pts * self._time_base
        seconds = max(0, self._until - first)
        if self._announced_end is not None:
            seconds = max(seconds, self._announced_end - first)
        elif self._track_end is not None and self._end is None:
            seconds = max(seconds, self._track_end * self._time_base - first)
        return Extent(max(self._read, self.count or 0), seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        for stream in self._container.streams.video:
            if stream.codec_context is not None:
                # avoids a deadlock: a decoder thread that logs waits for the GIL, and freeing the decoder waits for it
                stream.codec_context.flush_buffers()
        self._container.close()
        self._complaints.close()

    def _refuse_changed(self) -> None:
        """Refuses a file that grew while it was read to its end, such as an unfinished recording."""
        if self._end is None and _size_of(self.path) not in (self._bytes, None):
            raise DBLRError(
                f'{self.path} changed while it was read; if it is still being recorded or copied, wait until it is '
                'complete, then start again'
            )

    def _within(self, decoded: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
        """Yields the frames from start to end, without lost ones at the start, which no earlier frame can replace."""
        begun = False
        for pts, frame in decoded:
            time = pts * self._time_base
            if self._end is not None and time >= self._end:
                return
            if (self._start is None or time >= self._start) and (begun or frame is not None):
                begun = True
                yield pts, frame

    def _look_at(self, stream: VideoStream, frame: av.VideoFrame, scale_down: float) -> None:
        """Reads from the stream and its first frame what applies to all frames."""
        self._coded_size = (frame.height, frame.width)
        self._orientation = Orientation.of(frame, str(self.path))
        upright = self._coded_size[::-1] if self._orientation.transposed else self._coded_size
        self.size = scaled_size(upright, scale_down)
        self.high_bit_depth = bits_of(frame.format) > 8
        self._warn_interlaced(frame)
        # VP8 and VP9 store transparency in a separate stream, which is not decoded
        hidden = stream.metadata.get('alpha_mode') == '1'
        if hidden or self._is_transparent(frame):
            _log.warning('%s has transparency, which is left out of the output', self.path)

    def _warn_interlaced(self, frame: av.VideoFrame) -> None:
        """Warns at the first frame that is interlaced; broadcasts and DVDs change between both."""
        if frame.interlaced_frame and not self._interlaced:
            self._interlaced = True
            text = '%s is interlaced; deinterlace it first (ffmpeg -vf bwdif), or combing artefacts remain'
            _log.warning(text, self.path)

    def _is_transparent(self, frame: av.VideoFrame) -> bool:
        if not any(component.is_alpha for component in frame.format.components):
            return False
        # FFmpeg decodes every GIF with transparency, used or not
        return self._container.format.name != 'gif' or frame.to_ndarray(format='rgba')[..., 3].min() < 255

    def _pixels(self, frame: av.VideoFrame, pts: int) -> np.ndarray:
        is_deep = bits_of(frame.format) > 8
        if (frame.height, frame.width) != self._coded_size or is_deep != self.high_bit_depth:
            what = 'frame size' if is_deep == self.high_bit_depth else 'bit depth'
            raise DBLRError(f'{self.path} changes its {what} at {self._place(pts)} s; split it there into two videos')
        colour = ColourTags.of(frame, self._said)  # which changes where recordings were joined
        return shrink(self._orientation.apply(to_rgb(frame, colour)), self.size)

    def _duration(self, pts: int, frame: av.VideoFrame | None, following: int | None) -> int:
        """Returns how long a frame is shown: until the next one; the last, as long as it or the file says."""
        if following is not None:
            return following - pts
        own = frame.duration if frame is not None and frame.duration else round(self._step / self._time_base)
        end = pts + own
        if self._whole and self._announced_end is not None:
            end = max(end, round(self._announced_end / self._time_base))
        if self._track_end is not None and pts < self._track_end:
            end = self._within_track(end)
        if self._end is not None:
            end = min(end, math.ceil(self._end / self._time_base))
        return max(1, end - pts)

    def _within_track(self, end: int) -> int:
        """Returns when MP4's last frame ends; its duration is that of the frame decoded last, not shown last."""
        is_last = self.count is not None and self._read + 1 == self.count
        much = abs(self._track_end - end) > _ROUNDING / self._time_base
        return self._track_end if much and (is_last or self._track_end < end) else end

    def _place(self, pts: int) -> str:
        """Returns a timestamp as shown to users, in seconds from the beginning."""
        return f'{float(pts * self._time_base - self._begin):.2f}'

    def _warn_timing(self, gaps: Gaps) -> None:
        """Warns about restarts of the clock that were made continuous, and about gaps where frames were lost."""
        joints = self._decoder.clock.joints
        if joints:
            times = ', '.join(f'{float(joint - self._begin):.2f}' for joint in joints[:5])
            more = ', ...' if len(joints) > 5 else ''
            _log.warning(
                '%s: its timestamps restart or jump at %s s%s; they are made continuous', self.path, times, more
            )
        if self._decoder.squeezed is not None:
            text = '%s: its timestamps go back at %s s, where another video may begin; what follows is shown too fast'
            _log.warning(text, self.path, self._place(self._decoder.squeezed))
        if self._container.format.name == 'avi':
            return
        longest = self._longest * self._time_base if self._container.format.name in SAY_DURATIONS else Fraction(0)
        if holes := gaps.described(self._begin, longest):
            _log.warning('%s: frames are missing for %s; the frame before each gap is shown longer', self.path, holes)

    def _warn_damage(self, read: int, last: Fraction) -> None:
        decoder, end = self._decoder, self._announced_end
        if self._lost:
            times = ', '.join(map(self._place, self._lost[:5]))
            more = ', ...' if len(self._lost) > 5 else ''
            text = '%s: %s cannot be decoded, at %s s%s; the frame before each is repeated in its place'
            _log.warning(text, self.path, counted(len(self._lost), 'frame'), times, more)
        if decoder.undecodable_start and self._start is None:
            text = '%s: %s at its beginning cannot be decoded without a key frame, and is left out'
            _log.warning(text, self.path, counted(decoder.undecodable_start, 'frame'))
        if self._corrupt:
            _log.warning('%s: damaged data in %s', self.path, counted(self._corrupt, 'frame'))
        late = Fraction(3, 2) if self._container.format.name == 'avi' else _CUT_OFF
        early = not self._whole and end is not None and end - last > late * self._step
        missing = read < (self.count or 0) or early
        if decoder.cut_off or missing:
            of = counted(read, 'frame') if self.count is None else f'{read} of {counted(self.count, "frame")}'
            _log.warning('%s is truncated; %s could be read', self.path, of)
        # a decoder that starts in the middle of an intact file logs errors too
        said = self._complaints.of(self._container.format.name, *([self._codec] if self._start is None else []))
        if said is not None:
            text = '%s: FFmpeg met an error in it and continued, so frames may be damaged or missing: %s'
            _log.warning(text, self.path, said)


def _size_of(path: Path) -> int | None:
    """Returns the size of a file in bytes; None without a file. Network disks may change its time of modification."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _rate_of(stream: VideoStream) -> Fraction:
    """Returns the frames per second, see :class:`StreamInfo`; where FFmpeg's average says nothing, the nominal rate.

    That is the clock, 60000, for DV, and always 25 for files of one stream without timestamps.
    """
    has_nominal = stream.codec.name == 'dvvideo' or 'timecode' in map(str.lower, stream.metadata)
    has_nominal = has_nominal or bool(stream.container.format.flags & Flags.no_timestamps.value)
    rates = (stream.guessed_rate, stream.average_rate) if has_nominal else (stream.average_rate, stream.guessed_rate)
    return Fraction(next(filter(None, rates), 25))


def _chroma(video_format: av.VideoFormat) -> str:
    """Returns the chroma subsampling to keep. RGB, grey and rare formats become 4:2:0, which every player supports."""
    across = video_format.chroma_width(16)
    down = video_format.chroma_height(16)
    if len(video_format.components) < 3 or video_format.is_rgb:
        return '420'
    return {(8, 16): '422', (16, 16): '444'}.get((across, down), '420')
