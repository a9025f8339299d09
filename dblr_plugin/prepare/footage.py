"""Finds sharp footage: a video file, a folder of frames, or a folder of several of either."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.data.images import decode, is_image, natural, opened, refuse_undecodable
from dblr_plugin.errors import DBLRError
from dblr_plugin.video import open_source
from dblr_plugin.video.batch import READ_SUFFIXES, is_video

__all__ = ['Footage', 'find_footage']

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footage:
    """One video: its name, its file or folder, and a function that yields its uint8 RGB frames (h, w, 3) in order."""

    name: str
    path: Path
    frames: Callable[[], Iterator[np.ndarray]]


def find_footage(src: Path) -> list[Footage]:
    """Returns the videos at ``src``, in natural order of their names.

    Images beside video files are taken for thumbnails, and left out with a warning.

    Raises:
        DBLRError: There is none, two share a name, or a name is not UTF-8.
    """
    if src.is_file():
        return [_from_file(src)]
    if not src.is_dir():
        raise DBLRError(f'{src} does not exist; give a video file, a folder of frames, or a folder of either')
    entries = sorted((path for path in src.iterdir() if not path.name.startswith('.')), key=lambda p: natural(p.name))
    images = sum(is_image(path.name) for path in entries)
    found = [_from_file(path) for path in entries if is_video(path.name)]
    if images and found:
        _log.warning('%s: %d images beside %d videos are left out', src, images, len(found))
    elif images:
        return [_from_folder(src)]
    found += [_from_folder(path) for path in entries if path.is_dir() and _images(path)]
    if not found:
        suffixes = ', '.join(READ_SUFFIXES)
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

    def frames() -> Iterator[np.ndarray]:
        with open_source(path) as source:
            for picture in source:
                if getattr(source, 'damaged', 0):  # only videos count them
                    raise DBLRError(
                        f'{path}: a frame at {picture.name} is damaged; get an intact copy, or cut it out there'
                    )
                deep = picture.pixels.dtype == np.uint16
                yield cv2.convertScaleAbs(picture.pixels, alpha=1 / 257) if deep else picture.pixels

    return Footage(path.stem, path, frames)


def _from_folder(folder: Path) -> Footage:
    refuse_undecodable(folder.parent, [folder.name])

    def frames() -> Iterator[np.ndarray]:
        for path in _images(folder):
            with opened(path) as file:
                yield np.ascontiguousarray(decode(file.read(), str(path))[..., ::-1])

    return Footage(folder.resolve().name, folder, frames)


def _images(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if is_image(path.name)), key=lambda path: natural(path.name))
