"""Lists the videos that a folder or glob means, and the output of each."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from dblr_plugin.data.images import is_image, natural, refuse_undecodable
from dblr_plugin.errors import DBLRError

__all__ = ['READ_SUFFIXES', 'VIDEO_SUFFIXES', 'find_batch', 'is_video']

#: Suffixes of videos that are written; encoders.FORMATS knows their containers.
VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm')
#: Suffixes by which videos are known in folders; a file that is named is read whatever its suffix.
READ_SUFFIXES = (
    *VIDEO_SUFFIXES,
    '.avi',
    '.mpg',
    '.mpeg',
    '.mts',
    '.m2ts',
    '.ts',
    '.vob',
    '.wmv',
    '.flv',
    '.y4m',
    '.ogv',
    '.3gp',
)

_WRITTEN_INSTEAD = '.mkv'  # holds whatever the others do


def is_video(name: str) -> bool:
    """Whether a file of this name in a folder is a video: a known suffix in any case, and not hidden."""
    return name.lower().endswith(READ_SUFFIXES) and not name.startswith('.')


def find_batch(path_or_glob: str | Path, output: str | Path, suffix: str = '') -> list[tuple[Path, Path]] | None:
    """Finds the videos below a folder, or those that a glob names.

    Args:
        path_or_glob: What was named as input.
        output: The folder for the results, which get the same tree, names and containers; a container that is not
            written becomes Matroska.
        suffix: Put behind each name, before the extension.

    Returns:
        Each video and its output, in natural order; None where one input is meant: a file, a folder of images, or a
        glob that names one video or images.

    Raises:
        DBLRError: It is not clear what is meant, or two videos would have one output.
    """
    root = Path(path_or_glob)
    if root.is_dir():
        names = [path.name for path in root.iterdir()]
        images, videos = sum(map(is_image, names)), sum(map(is_video, names))
        if images and videos:
            raise DBLRError(
                f"{root} holds {images} images and {videos} videos; name the ones with a glob: '{root}/*.mp4'"
            )
        found = [] if images else _below(root, Path(output))
        if not found:
            return None
    elif root.exists() or not glob.has_magic(str(root)):
        return None
    else:
        found = [path for path in map(Path, glob.glob(str(root), recursive=True)) if is_video(path.name)]
        if len(found) < 2:
            return None
        root = Path(os.path.commonpath([path.parent for path in found]))
    return _paired(sorted(found, key=lambda path: natural(str(path))), root, Path(output), suffix)


def _below(root: Path, output: Path) -> list[Path]:
    """Returns all videos below a folder, but for those in the output's."""
    found = []
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        hidden_or_output = [d for d in folders if d.startswith('.') or _is_same(here / d, output)]
        folders[:] = [d for d in folders if d not in hidden_or_output]
        found += [here / name for name in files if is_video(name)]
    return found


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and os.path.samefile(one, other)


def _paired(videos: Iterable[Path], root: Path, output: Path, suffix: str) -> list[tuple[Path, Path]]:
    if output.suffix.lower() in VIDEO_SUFFIXES and not output.is_dir():
        raise DBLRError(f'{output} is one video, and the input has several; give a folder')
    if output.is_file():
        raise DBLRError(f'{output} is a file, and the input has several videos; give a folder')
    if any(separator in suffix for separator in '/\\'):
        raise DBLRError(f"suffix '{suffix}' leads to another folder; names cannot hold a slash")
    pairs: dict[Path, Path] = {}
    for video in videos:
        refuse_undecodable(video.parent, [video.name])
        kept = video.suffix.lower() in VIDEO_SUFFIXES
        name = f'{video.stem}{suffix}{video.suffix if kept else _WRITTEN_INSTEAD}'
        target = output / video.relative_to(root).parent / name
        if target in pairs:
            raise DBLRError(f'{pairs[target]} and {video} would both become {target}; rename one')
        pairs[target] = video
    return [(video, target) for target, video in pairs.items()]
