"""Opens media files: what a container says about its streams, and the errors that FFmpeg logs about it."""

from __future__ import annotations

import logging
import os
import struct
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from av.video import VideoStream

from dblr_plugin.errors import DBLRError
from dblr_plugin.video.settings import parse_time

__all__ = [
    'ANY_TAGS', 'MATROSKA', 'SAY_DURATIONS', 'Complaints', 'announced_count', 'announced_end', 'beginning_of',
    'has_whole_index', 'likely_count', 'main_stream', 'open_container', 'refuse_disk_error', 'require_main_stream',
    'seek_before', 'track_end',
]  # fmt: skip

_log = logging.getLogger(__name__)

# Makes av.open keep tags that are not UTF-8 byte for byte: PyAV 19 does so by default.
ANY_TAGS: dict[str, Any] = {'metadata_errors': 'surrogateescape'} if hasattr(InputContainer, 'metadata_errors') else {}

# Formats with an index of key frames. In others a seek may land between key frames, and lose the frames after it.
MATROSKA = 'matroska,webm'
_INDEXED = ('mov,mp4,m4a,3gp,3g2,mj2', MATROSKA, 'avi')

# Formats that store each frame's duration: a long one is intended.
SAY_DURATIONS = (_INDEXED[0], 'avi')

# Suffixes of formats with a header. If it is damaged, FFmpeg plays what looks like raw MPEG-4 after it.
_HEADED = ('.mp4', '.mov', '.mkv', '.webm', '.avi')

# FFmpeg's formats of single images, besides those that end in _pipe, and major brands of HEIC and AVIF images. FFmpeg
# gives the tiles of a HEIC image as streams of their own, and no transparency.
_STILL_FORMATS, _STILL_BRANDS = ('image2', 'ico'), ('heic', 'heix', 'mif1', 'avif')

_TAIL_BYTES = 1 << 20  # in which MP4 may have its index
_CHUNK_BYTES = 1 << 24

_LOGGER = logging.getLogger('libav')  # PyAV's, with a child for each FFmpeg component

# logged for intact files: a chapter title track that a cut video has lost
_HARMLESS = ('Referenced QT chapter track not found',)


def open_container(path: Path) -> InputContainer:
    """Opens a media file for reading; raises DBLRError if it is missing or not readable as one."""
    if not path.is_file():
        reason = 'is not a file that can be read twice' if path.exists() else 'does not exist'
        raise DBLRError(f'{path} {reason}; give a video file, a folder of images, or a glob of images')
    try:
        # the prefix keeps FFmpeg from taking a name with a colon for a URL
        container = av.open(f'file:{path}', **ANY_TAGS)
    except av.error.PermissionError as error:
        raise DBLRError(f'{path} cannot be read ({error.strerror}); change its permissions') from error
    except (av.error.FFmpegError, IndexError) as error:
        _refuse_unreadable(path, -_TAIL_BYTES)
        raise DBLRError(f'{path} is not a video, or is incomplete; give a complete video file') from error
    if path.suffix.lower() in _HEADED and container.format.flags & Flags.no_timestamps.value:
        container.close()
        raise DBLRError(f'{path} is damaged: its header is of another format; give an intact copy')
    return container


def refuse_disk_error(container: InputContainer, error: av.error.FFmpegError, position: int) -> None:
    """Refuses a file that a disk or network stopped giving, which is not its end: the rest would be missing.

    Some demuxers end with the same error at damaged data. So the file is read again.

    Args:
        container: The file.
        error: What ended the reading.
        position: Where in the file, in bytes.

    Raises:
        DBLRError: The file cannot be read to its end.
    """
    if isinstance(error, OSError):
        _refuse_unreadable(Path(container.name.removeprefix('file:')), position)


def _refuse_unreadable(path: Path, position: int) -> None:
    """Reads a file from a position on, or from one before its end if it is negative; raises DBLRError if that fails."""
    try:
        with open(path, 'rb') as file:
            file.seek(position if position >= 0 else max(0, file.seek(0, os.SEEK_END) + position))
            while file.read(_CHUNK_BYTES):
                pass
    except OSError as error:
        raise DBLRError(
            f'{path} cannot be read ({error.strerror}); check its disk or the network, then start again'
        ) from error


def seek_before(container: InputContainer, time: Fraction) -> None:
    """Seeks to a key frame at or before ``time`` in seconds, if the format supports this reliably."""
    if container.format.name in _INDEXED:
        container.seek(int(time * av.time_base))


def main_stream(container: InputContainer) -> VideoStream | None:
    """Returns the largest video stream that can be decoded and is not a cover image."""
    usable = [s for s in _moving(container) if s.codec_context is not None]
    return max(usable, key=lambda s: s.width * s.height, default=None)


def _moving(container: InputContainer) -> list[VideoStream]:
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def require_main_stream(container: InputContainer, path: Path) -> VideoStream:
    """Returns the largest video stream and warns about others; raises DBLRError for images, or if none is decodable."""
    if _is_still(container):
        raise DBLRError(f'{path} is an image; convert it to .png or .jpg, or fix its suffix if it is one already')
    main, moving = main_stream(container), _moving(container)
    if main is None:
        reason = 'is in a format that FFmpeg does not decode' if moving else 'has no video stream'
        raise DBLRError(f'{path} {reason}; give a video')
    if len(moving) > 1:
        _log.warning('%s has %d video streams; the largest is used, the others are left out', path, len(moving))
    if container.format.name == _INDEXED[0] and _is_followed(path):
        text = '%s holds several videos in a row, of which only the first is read; join them with ffmpeg -f concat'
        _log.warning(text, path)
    return main


def _is_followed(path: Path) -> bool:
    """Returns whether another video follows in an MP4 file, as after ``cat a.mp4 b.mp4``; FFmpeg ignores it."""
    return any(_boxes(path).count(kind) > 1 for kind in (b'ftyp', b'moov'))


def _boxes(path: Path) -> list[bytes]:
    """Returns the kinds of the boxes of an MP4 file, up to its first fragment, as its index may be repeated later."""
    kinds, at, end = [], 0, path.stat().st_size
    with open(path, 'rb') as file:
        while at + 16 <= end and b'moof' not in kinds:
            file.seek(at)
            size, kind, large = struct.unpack('>I4sQ', file.read(16))
            kinds.append(kind)
            at += max(8, large if size == 1 else size or end)
    return kinds


def _is_still(container: InputContainer) -> bool:
    name, brand = container.format.name, container.metadata.get('major_brand', '').strip()
    return name in _STILL_FORMATS or name.endswith('_pipe') or brand in _STILL_BRANDS


def beginning_of(container: InputContainer) -> Fraction:
    """Returns when the first of video and sound begins, in seconds; 0 if they begin before 0.

    This is what ffmpeg maps to the output's 0, but exact, while the container's own value is in microseconds. The clock
    of transport and program streams begins anywhere: before 0 if it wraps around within the file.
    """
    streams = [*container.streams.video, *container.streams.audio]
    starts = [stream.start_time * stream.time_base for stream in streams if stream.start_time is not None]
    begin = min(starts, default=Fraction(0))
    return begin if container.format.flags & Flags.ts_discont.value else max(Fraction(0), begin)


def has_whole_index(container: InputContainer, path: Path) -> bool:
    """Returns whether FFmpeg has read the index of all frames, of MP4; it reads those of DASH segments on the way."""
    return container.format.name == _INDEXED[0] and b'sidx' not in _boxes(path)


def announced_count(stream: VideoStream) -> int | None:
    """Returns the number of frames in the whole index of a file, without those that an edit list removes."""
    return sum(not entry.is_discard for entry in stream.index_entries) or None


def likely_count(container: InputContainer, rate: Fraction) -> int | None:
    """Returns about how many frames a file has by the duration in its header; None without one, or without an index."""
    if container.format.name not in _INDEXED or not container.duration:
        return None
    return int(Fraction(container.duration, av.time_base) * rate)


def announced_end(container: InputContainer, stream: VideoStream, rate: Fraction) -> Fraction | None:
    """Returns when the last frame ends, in seconds, if the file's header says so."""
    if container.format.name == 'avi':
        return stream.frames / rate if stream.frames else None
    with suppress(DBLRError):  # each Matroska muxer writes it in its own format
        return parse_time(stream.metadata.get('DURATION', ''), 'DURATION')
    return None


def track_end(stream: VideoStream) -> int | None:
    """Returns the pts at which an MP4 track ends, to the millisecond: frame durations are in decoding order."""
    return (stream.start_time or 0) + stream.duration if stream.duration else None


class Complaints(logging.Handler):
    """Records the first error of each FFmpeg component, from construction until it is closed.

    FFmpeg does not say which file an error concerns: while several instances listen, none of them records anything.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._first: dict[str, str] = {}
        if av.logging.get_level() is None:  # nobody else listens, or wants errors printed
            av.logging.set_level(av.logging.ERROR)
            _LOGGER.propagate = False
            _LOGGER.addHandler(logging.NullHandler())
        _LOGGER.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Records a message if it is the first of its component."""
        message = record.getMessage().strip()
        listening = sum(isinstance(handler, Complaints) for handler in _LOGGER.handlers)
        if listening == 1 and message not in _HARMLESS:
            self._first.setdefault(record.name.removeprefix('libav.'), message)

    def of(self, *parts: str) -> str | None:
        """Returns the first message of the demuxers and decoders named in ``parts``; None if there is none."""
        return next((self._first[part] for part in parts if part in self._first), None)

    def close(self) -> None:
        """Stops listening."""
        _LOGGER.removeHandler(self)
        super().close()
