"""Reads and writes videos, folders of images, globs and single images.

A video keeps every picture and its time, its colours and depth, sound and subtitles; a folder keeps names, format and
depth. See :class:`VideoSource`, :class:`VideoSink`, :class:`FolderSource` and :class:`FolderSink` for what exactly.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from dblr_plugin.data.images import IMAGE_SUFFIXES, is_image, refuse_undecodable
from dblr_plugin.errors import DBLRError
from dblr_plugin.video.batch import VIDEO_SUFFIXES
from dblr_plugin.video.folder import FolderSink, FolderSource, tell_left_out
from dblr_plugin.video.frames import Frame, Sink, Source
from dblr_plugin.video.settings import DEFAULT, EncoderSettings, parse_position, parse_rate, parse_time
from dblr_plugin.video.unfinished import AlreadyComplete, Existing, fingerprint

__all__ = ['AlreadyComplete', 'EncoderSettings', 'Frame', 'Sink', 'Source', 'fingerprint', 'open_sink', 'open_source']

_UNWRITTEN_SUFFIXES = ('.avi', '.mpg', '.mpeg', '.mts', '.m2ts', '.ts', '.wmv', '.flv', '.y4m', '.gif', '.ogv', '.3gp')
_DEFAULT_RATE = Fraction(25)  # ffmpeg's, for pictures without a rate of their own


def open_source(
    path_or_glob: str | Path, start: str | float | None = None, end: str | float | None = None, scale_down: float = 1
) -> Source:
    """Opens what is to be restored.

    Args:
        path_or_glob: A video file, a folder of images, one image, or a glob such as ``'frames/*.png'``.
        start: Where to begin, for trials. In a video a time after its beginning, in seconds or as ``h:mm:ss.s``; in a
            folder a number of pictures to skip.
        end: Where to stop, counted likewise, from the source's beginning; the picture there is not read any more.
        scale_down: The factor by which pictures shrink, by averaging areas; sides become even.

    Raises:
        DBLRError: There is nothing to read, or it is damaged.
    """
    if not scale_down >= 1:
        raise DBLRError(f'scale_down must be 1 or more, got {scale_down}')
    path, images = _found(path_or_glob)
    if images:
        first = 0 if start is None else parse_position(start, 'start')
        last = None if end is None else parse_position(end, 'end')
        return FolderSource(path, images, first, last, scale_down)
    _require_av()
    from dblr_plugin.video.video_source import VideoSource

    begin = None if start is None else parse_time(start, 'start')
    stop = None if end is None else parse_time(end, 'end')
    return VideoSource(path, begin, stop, scale_down)


def open_sink(
    path: str | Path,
    source: Source,
    *,
    encoder: EncoderSettings = DEFAULT,
    fps: str | float | None = None,
    suffix: str = '',
    existing: Existing = 'replace',
    settings: Mapping[str, Any] | None = None,
) -> Sink:
    """Opens where restored pictures go.

    Args:
        path: A video (.mp4 .m4v .mov .mkv .webm), an image for a source of one picture, or a folder: it exists,
            ends in a slash, or has no suffix.
        source: Where the pictures come from; a video hands on its times, colours, sound and subtitles.
        encoder: How a video is encoded.
        fps: Pictures a second of a video that is made from a folder, 25 by default.
        suffix: Put behind the names of a folder's files, before the extension.
        existing: What to do about older files: ``replace`` them, ``refuse`` to, or ``resume`` what is not complete. The
            input is never replaced.
        settings: What must be the same for resuming an output, as JSON can hold it; see :func:`fingerprint`.

    Raises:
        DBLRError: The output cannot be had as wanted.
        AlreadyComplete: It is to be resumed, and is complete.
    """
    is_folder = str(path).endswith(('/', os.sep))
    path = Path(path)
    is_folder = is_folder or path.is_dir() or not path.suffix
    if any(separator in suffix for separator in '/\\'):
        raise DBLRError(f"suffix '{suffix}' leads to another folder; names cannot hold a slash")
    if not is_folder and path.suffix.lower() in VIDEO_SUFFIXES:
        if suffix:
            raise DBLRError(f"{path} has the name that was given; a suffix ('{suffix}') is for folders")
        return _video_sink(path, source, encoder, fps, existing, settings)
    if encoder != DEFAULT or fps is not None:
        raise DBLRError(f'{path} is no video: encoder, quality, lossless, preset and fps mean nothing; drop them')
    if is_folder:
        return FolderSink(path, source, suffix, existing=existing, settings=settings)
    if is_image(path.name):
        if source.count != 1:
            raise DBLRError(f'{path} is one image, and {source.path} has more; give a folder')
        return FolderSink(path.parent, source, only=path.name, existing=existing)
    if path.suffix.lower() in _UNWRITTEN_SUFFIXES:
        raise DBLRError(f'{path.suffix} is not written; give one of {" ".join(VIDEO_SUFFIXES)}')
    raise DBLRError(
        f'{path} ends in no format that is written; give {" ".join(VIDEO_SUFFIXES + IMAGE_SUFFIXES)}, '
        f'or a folder as {path}/'
    )


def _video_sink(
    path: Path,
    source: Source,
    encoder: EncoderSettings,
    fps: str | float | None,
    existing: Existing,
    settings: Mapping[str, Any] | None,
) -> Sink:
    _require_av()
    from dblr_plugin.video.video_sink import VideoSink
    from dblr_plugin.video.video_source import StreamInfo, VideoSource

    if isinstance(source, VideoSource):
        if fps is not None:
            raise DBLRError(f'{source.path} has its own frame rate, which stays; drop fps')
        info = source.info
    else:
        rate = _DEFAULT_RATE if fps is None else parse_rate(fps)
        info = StreamInfo.of_pictures(rate)
        tell_left_out(source.described, path)
    return VideoSink(path, info, source.high_bit_depth, encoder, existing, settings)


def _found(path_or_glob: str | Path) -> tuple[Path, list[Path]]:
    """Returns what is meant, and its images; a video has none.

    Raises:
        DBLRError: A glob matches nothing usable, a folder has no images, or two images share a name.
    """
    path = Path(path_or_glob)
    if path.is_dir():
        files = [file for file in path.iterdir() if is_image(file.name)]
        if not files:
            raise DBLRError(f'{path} holds no images; give a folder of frames, or a video file')
        refuse_undecodable(path, (file.name for file in files))
        return path, files
    if path.exists() or not glob.has_magic(str(path)):
        return path, [path] if is_image(path.name) and path.is_file() else []
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    images = [match for match in matches if is_image(match.name)]
    if not images and len(matches) == 1 and matches[0].is_file():
        return matches[0], []
    if not images:
        raise DBLRError(f"'{path}' matches {len(matches)} files, none of them an image; give a glob of images")
    if len({match.name for match in images}) < len(images):
        raise DBLRError(f"'{path}' matches images of the same name in several folders; restore one folder at a time")
    return images[0].parent, images


def _require_av() -> None:
    try:
        import av  # noqa: F401  (only this is asked: whether it can be imported)
    except ImportError as error:
        raise DBLRError(f"videos need PyAV ({error}): pip install 'dblr_plugin[video]'") from error
