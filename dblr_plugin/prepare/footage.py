"""Sharp footage as users have it: a video file, a folder of frames, or a folder of several of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dblr_plugin.data.images import decode, is_image, natural, opened, refuse_undecodable
from dblr_plugin.data.synthesis import read_video
from dblr_plugin.errors import DBLRError

__all__ = ['Footage', 'find_footage']

VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.mpeg', '.mts', '.m2ts', '.wmv', '.y4m')


@dataclass(frozen=True)
class Footage:
    """One video: its name, its file or folder, and a function that yields its uint8 RGB frames (h, w, 3) in order."""

    name: str
    path: Path
    frames: Callable[[], Iterator[np.ndarray]]


def find_footage(src: Path) -> list[Footage]:
    """Returns the videos at ``src``, in natural order of their names.

    Raises:
        DBLRError: There is none, two share a name, or a name is not UTF-8.
    """
    if src.is_file():
        return [_from_file(src)]
    if not src.is_dir():
        raise DBLRError(f'{src} does not exist; give a video file, a folder of frames, or a folder of either')
    entries = sorted((path for path in src.iterdir() if not path.name.startswith('.')), key=lambda p: natural(p.name))
    if any(is_image(path.name) for path in entries):
        return [_from_folder(src)]
    found = [_from_file(path) for path in entries if path.suffix.lower() in VIDEO_SUFFIXES]
    found += [_from_folder(path) for path in entries if path.is_dir() and _images(path)]
    if not found:
        suffixes = ', '.join(VIDEO_SUFFIXES)
        raise DBLRError(f'{src} holds neither images, nor folders of images, nor videos ({suffixes})')
    named: dict[str, Footage] = {}
    for footage in found:
        if footage.name in named:
            raise DBLRError(
                f"{named[footage.name].path} and {footage.path} are both named '{footage.name}'; rename one"
            )
        named[footage.name] = footage
    return found


def _from_file(path: Path) -> Footage:
    refuse_undecodable(path.parent, [path.name])
    if not path.is_file():
        raise DBLRError(f'{path} is not a file; remove it')
    return Footage(path.stem, path, lambda: read_video(path))


def _from_folder(folder: Path) -> Footage:
    refuse_undecodable(folder.parent, [folder.name])

    def frames() -> Iterator[np.ndarray]:
        for path in _images(folder):
            with opened(path) as file:
                yield np.ascontiguousarray(decode(file.read(), str(path))[..., ::-1])

    return Footage(folder.resolve().name, folder, frames)


def _images(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if is_image(path.name)), key=lambda path: natural(path.name))
