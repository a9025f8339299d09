"""Reads and writes videos, folders of images, globs and single images.

A video keeps every frame and its timestamp, colours and bit depth, sound and subtitles; a folder keeps file names,
format and bit depth. For details, see :class:`VideoSource`, :class:`VideoSink`, :class:`FolderSource` and
:class:`FolderSink`.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from dblr_plugin.data.images import IMAGE_SUFFIXES, is_hidden, is_image, natural, refuse_undecodable
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.files import write_fault
from dblr_plugin.video.folder import FolderSink, FolderSource, warn_left_out
from dblr_plugin.video.frames import Frame, Sink, Source
from dblr_plugin.video.settings import DEFAULT, EncoderSettings, parse_position, parse_rate, parse_time
from dblr_plugin.video.unfinished import AlreadyComplete, Existing, fingerprint

__all__ = [
    'READ_SUFFIXES', 'AlreadyComplete', 'EncoderSettings', 'Frame', 'Sink', 'Source', 'find_batch', 'fingerprint',
    'is_video', 'open_sink', 'open_source',
]  # fmt: skip

_log = logging.getLogger(__name__)

#: Suffixes of the videos that can be written; encoders.FORMATS maps them to containers.
VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm')
#: Suffixes that mark a file in a folder as a video; a file that is named explicitly is read whatever its suffix.
READ_SUFFIXES = (
    *VIDEO_SUFFIXES, '.avi', '.mpg', '.mpeg', '.mts', '.m2ts', '.ts', '.vob', '.wmv', '.flv', '.y4m', '.ogv', '.3gp',
    '.3g2', '.asf', '.dv', '.mod', '.mxf', '.tod',
)  # fmt: skip

# Suffixes of images that cannot be read, which phones, cameras and studios mix with those that can
_UNREAD_SUFFIXES = (
    '.heic', '.heif', '.avif', '.gif', '.dng', '.jfif', '.exr', '.dpx', '.hdr', '.jp2', '.j2k', '.jxl', '.tga', '.ppm',
)  # fmt: skip

_WRITTEN_INSTEAD = '.mkv'  # can hold whatever the other containers can
_DEFAULT_RATE = Fraction(25)  # ffmpeg's default for image sequences


def open_source(
    path_or_glob: str | Path,
    start: str | float | Fraction | None = None,
    end: str | float | Fraction | None = None,
    scale_down: float = 1,
) -> Source:
    """Opens the input to restore.

    Args:
        path_or_glob: A video file, a folder of images, one image, or a glob such as ``'frames/*.png'``.
        start: Where to begin, for trial runs. For a video, a time after its beginning, in seconds or as ``h:mm:ss.s``;
            for a folder, the number of images to skip.
        end: Where to stop, likewise counted from the source's beginning; the frame there is excluded.
        scale_down: The factor by which frames are shrunk, by area averaging; their sides become even.

    Raises:
        DBLRError: There is nothing to read, or the input is damaged.
    """
    if not scale_down >= 1:
        raise DBLRError(f'--scale-down is {scale_down:g}; give 1 or more')
    with _reading(path_or_glob):
        path, images = _found(path_or_glob)
    if images:
        return FolderSource(path, images, *_part(parse_position, start, end), scale_down)
    _require_av()
    from dblr_plugin.video.video_source import VideoSource

    return VideoSource(path, *_part(parse_time, start, end), scale_down)


def _part(parse: Callable[[Any, str], Any], start: Any, end: Any) -> tuple[Any, Any]:
    """Returns where to start and end; raises DBLRError if one of them cannot be parsed, or nothing is between them."""
    first = None if start is None else parse(start, '--start')
    last = None if end is None else parse(end, '--end')
    if first is not None and last is not None and last <= first:
        times = f'--end {float(last):g} is not after --start {float(first):g}'
        raise DBLRError(f'{times}; give a later end or an earlier start')
    return first, last


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
    """Opens the output for the restored frames.

    Args:
        path: A video (.mp4 .m4v .mov .mkv .webm), an image for a source of one frame, or a folder: a path that exists
            as one, ends in a slash, or has no suffix.
        source: Where the frames come from; a video passes on its timestamps, colours, sound and subtitles.
        encoder: How to encode a video.
        fps: Frames per second of a video made from a folder, 25 by default.
        suffix: Appended to the names of a folder's files, before the extension.
        existing: What to do about existing files: ``replace`` them, ``refuse`` to, or ``resume`` what is incomplete.
            The input is never replaced.
        settings: What must match for an output to be resumed, serialisable as JSON; see :func:`fingerprint`.

    Raises:
        DBLRError: The output cannot be written as requested.
        AlreadyComplete: The output to resume is already complete.
    """
    if path == '-':  # not a Path, such as that of ./-
        raise DBLRError('- is no output: results cannot go to standard output; give a video file, or a folder as ./-')
    ends_in_slash = str(path).endswith('/')
    path = Path(path)
    try:
        is_folder = ends_in_slash or path.is_dir() or not path.suffix
    except OSError as error:
        raise write_fault(path, error) from error
    _check_suffix(suffix)
    if suffix and not is_folder:
        raise DBLRError(f"{path} is a file name; --suffix '{suffix}' is only for folders; remove it")
    if not is_folder and path.suffix.lower() in VIDEO_SUFFIXES:
        return _video_sink(path, source, encoder, fps, existing, settings)
    if encoder != DEFAULT or fps is not None:
        raise DBLRError(
            f'{path} is not a video, so --encoder, --quality, --preset, --lossless and --fps do not apply; remove them'
        )
    if is_folder:
        return FolderSink(path, source, suffix, existing=existing, settings=settings)
    if is_image(path.name):
        if source.count != 1:
            more = 'has more' if source.count else 'may have more'
            raise DBLRError(f'{path} is one image, and {source.path} {more}; give a folder')
        return FolderSink(path.parent, source, only=path.name, existing=existing)
    if path.suffix.lower() in (*READ_SUFFIXES, '.gif'):
        raise DBLRError(f'{path.suffix} cannot be written; give one of {" ".join(VIDEO_SUFFIXES)}')
    raise DBLRError(
        f'{path} has no suffix of a format that can be written; give {" ".join(VIDEO_SUFFIXES + IMAGE_SUFFIXES)}, '
        f'or a folder as {path}/'
    )


def _check_suffix(suffix: str) -> None:
    if any(separator in suffix for separator in '/\\'):
        raise DBLRError(f"--suffix '{suffix}' leads to another folder; names cannot hold a slash")


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
            raise DBLRError(f'{source.path} has its own frame rate, which is kept; remove --fps')
        info = source.info
    else:
        rate = _DEFAULT_RATE if fps is None else parse_rate(fps)
        info = StreamInfo.of_pictures(rate, bits=16 if source.high_bit_depth else 8)
        warn_left_out(source.described, path)
    return VideoSink(path, info, encoder, existing, settings)


def _found(path_or_glob: str | Path) -> tuple[Path, list[Path]]:
    """Returns the path to read and its images; a video has none."""
    path = Path(path_or_glob)
    if path.is_dir():
        found = list(path.iterdir())
        files = [file for file in found if is_image(file.name)]
        _warn_unread_images(path, (file.name for file in found))
        if not files:
            raise DBLRError(f'{path} holds no images; give a folder of {" ".join(IMAGE_SUFFIXES)} files, or a video')
        refuse_undecodable(path, (file.name for file in files))
        return path, files
    if path.exists() or not glob.has_magic(str(path)):
        return path, [path] if is_image(path.name) and path.is_file() else []
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    images = [match for match in matches if is_image(match.name)]
    if not images and len(matches) == 1 and matches[0].is_file():
        return matches[0], []
    _warn_unread_images(path, (match.name for match in matches))
    if not images:
        found = f'{counted(len(matches), "file")} or folders, none of them an image' if matches else 'nothing'
        raise DBLRError(f"'{path}' matches {found}; give a glob of images or of videos")
    if len({match.name for match in images}) < len(images):
        raise DBLRError(f"'{path}' matches images of the same name in several folders; restore one folder at a time")
    return images[0].parent, images


def _warn_unread_images(root: Path, names: Iterable[str]) -> None:
    unread = [name for name in sorted(names) if name.lower().endswith(_UNREAD_SUFFIXES) and name[0] != '.']
    if unread:
        more = f' and {len(unread) - 1} more' if len(unread) > 1 else ''
        _log.warning('%s: left out, as such images are not read: %s%s; convert to .png or .jpg', root, unread[0], more)


def _require_av() -> None:
    try:
        import av  # noqa: F401  (only checks that it can be imported)
    except ImportError as error:
        raise DBLRError(f"videos need PyAV ({error}): pip install 'dblr_plugin[video]'") from error


def is_video(name: str) -> bool:
    """Returns whether a file of this name in a folder is a video: a known suffix in any case, and not hidden."""
    return name.lower().endswith(READ_SUFFIXES) and not is_hidden(name)


def find_batch(path_or_glob: str | Path, output: str | Path, suffix: str = '') -> list[tuple[Path, Path]] | None:
    """Finds the videos below a folder, or those that a glob matches.

    Args:
        path_or_glob: The input as the user gave it.
        output: The folder for the results, which keep tree, names and containers; a container that cannot be written
            becomes Matroska.
        suffix: Appended to each name, before the extension.

    Returns:
        Each video and its output, in natural order, without those that are the output of another; None for a single
        input: a file, a folder of images, or a glob that matches one video or images.

    Raises:
        DBLRError: The input is ambiguous, or two videos would have the same output.
    """
    root = Path(path_or_glob)
    with _reading(root):
        if root.is_dir():
            names = [path.name for path in root.iterdir()]
            _refuse_mixture(root, names, glob.escape(str(root)))
            found = [] if any(map(is_image, names)) else _below(root, Path(output))
            if not found:
                return None
            _warn_unread_images(root, names)
        elif root.exists() or not glob.has_magic(str(root)):
            return None
        else:
            matches = [Path(match) for match in glob.glob(str(root), recursive=True)]
            _refuse_mixture(root, [path.name for path in matches], root.parent)
            found = [path for path in matches if is_video(path.name)]
            if len(found) < 2:
                return None
            root = Path(os.path.commonpath([path.parent for path in found]))
    return _paired(sorted(found, key=lambda path: natural(str(path))), root, Path(output), suffix)


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turns errors from looking for the input into a DBLRError."""
    try:
        yield
    except OSError as error:
        raise DBLRError(f'{path} cannot be read ({error.strerror}); fix its name or permissions') from error


def _refuse_mixture(root: Path, names: list[str], folder: str | Path) -> None:
    """Refuses a folder with both images and videos, as one kind would be left out."""
    images, videos = sum(map(is_image, names)), [name for name in names if is_video(name)]
    if images and videos:
        raise DBLRError(
            f'{root} holds {counted(images, "image")} and {counted(len(videos), "video")}; choose one kind with a '
            f"glob: '{folder}/*{Path(min(videos)).suffix}'"
        )


def _warn_unreadable(error: OSError) -> None:
    _log.warning('%s cannot be read (%s); videos in it are left out', error.filename, error.strerror)


def _below(root: Path, output: Path) -> list[Path]:
    """Returns all videos below a folder, except those in hidden folders and in the output."""
    found = []
    for folder, folders, files in os.walk(root, onerror=_warn_unreadable):
        here = Path(folder)
        for link in (here / d for d in folders if (here / d).is_symlink()):
            _log.warning('%s is a link to a folder; videos in it are left out', link)
        folders[:] = [d for d in folders if not is_hidden(d) and (here / d).resolve() != output.resolve()]
        found += [here / name for name in files if is_video(name)]
    return found


def _paired(videos: Iterable[Path], root: Path, output: Path, suffix: str) -> list[tuple[Path, Path]]:
    if output.suffix.lower() in READ_SUFFIXES and not output.is_dir():
        raise DBLRError(f'{output} is a video, but {root} is a folder of videos; give a folder')
    if output.is_file():
        raise DBLRError(f'{output} is a file, but {root} is a folder of videos; give a folder')
    _check_suffix(suffix)
    pairs: dict[Path, Path] = {}
    for video in videos:
        refuse_undecodable(video.parent, [video.name])
        kept = video.suffix.lower() in VIDEO_SUFFIXES
        name = f'{video.stem}{suffix}{video.suffix if kept else _WRITTEN_INSTEAD}'
        target = output / video.relative_to(root).parent / name
        if target in pairs:
            raise DBLRError(f'{pairs[target]} and {video} would both become {target}; rename one')
        pairs[target] = video
    # beside their inputs, results with a suffix look like further inputs to the next run
    results = {target.resolve() for target, video in pairs.items() if target.resolve() != video.resolve()}
    return [(video, target) for target, video in pairs.items() if video.resolve() not in results]
