"""Access to frames in a folder of clips or an LMDB database, through the same six methods."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dblr_plugin.data.images import (
    IMAGE_SUFFIXES,
    decode,
    decode_crop,
    inspected_size,
    is_image,
    natural,
    opened,
    refuse_undecodable,
    subfolders,
)
from dblr_plugin.data.lmdb_store import LmdbStore, TileStore
from dblr_plugin.data.tiles import TILES_JSON
from dblr_plugin.errors import DBLRError, nearest

__all__ = ['FolderStore', 'FrameStore', 'LmdbStore', 'frame_files', 'open_store']


class FolderStore:
    """Frames of clips in files ``root/<clip>/<frame>.<suffix>``, with any names.

    A frame is named after its file, without the suffix. Hidden files and files that are not images are ignored.

    Args:
        root: The folder with one subfolder per clip.

    Raises:
        DBLRError: The folder is missing, cannot be listed, or contains no clips, two files for one frame, or a name
            that is not UTF-8.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            reason = 'is not a folder' if self.root.exists() else 'does not exist'
            raise DBLRError(f'{self.root} {reason}; give the folder that holds one folder of frames for each clip')
        try:
            self._files = {clip: frame_files(self.root / clip) for clip in subfolders(self.root)}
        except OSError as error:
            raise DBLRError(f'{error.filename} cannot be listed ({error.strerror}); fix or remove it') from error
        if not any(self._files.values()):
            raise DBLRError(f'{self.root} has no clips; {self._layout_hint()}')

    def clips(self) -> dict[str, tuple[str, ...]]:
        """Returns clip name -> frame names, both in natural order; a folder without images is a clip with no frames."""
        return {clip: tuple(files) for clip, files in self._files.items()}

    def path(self, clip: str, frame: str) -> Path:
        """Returns the path of a frame's file."""
        return self.root / clip / self._files[clip][frame]

    def source_bytes(self) -> int:
        """Returns the total size of the frames' files, in bytes."""
        return sum(self.path(clip, frame).stat().st_size for clip, frames in self.clips().items() for frame in frames)

    def where(self, clip: str, frame: str) -> str:
        """Returns the path of a frame's file as text."""
        return str(self.path(clip, frame))

    def inspect(self, clip: str, frame: str) -> tuple[int, int]:
        """Returns (height, width); see :func:`~dblr_plugin.data.images.inspected_size`."""
        return inspected_size(self.path(clip, frame))

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Decodes one frame to uint8 (h, w, 3), BGR; raises DBLRError if it is missing, empty or not an image."""
        path = self.path(clip, frame)
        with opened(path) as file:
            return decode(file.read(), str(path))

    def read_crop(self, clip: str, frame: str, top: int, left: int, size: int, y_only: bool = False) -> np.ndarray:
        """Decodes one square crop of a frame; see :meth:`LmdbStore.read_crop`."""
        path = self.path(clip, frame)
        with opened(path) as file:
            return decode_crop(file.read(), str(path), top, left, size, y_only)[0]

    def _layout_hint(self) -> str:
        """Returns advice for a folder without a single clip."""
        if any(is_image(entry.name) for entry in os.scandir(self.root)):
            return f'the images lie directly in it: move them into a folder of their own, such as {self.root}/clip'
        for clip in self._files:
            deeper = next((sub for sub in subfolders(self.root / clip) if frame_files(self.root / clip / sub)), None)
            if deeper is not None:
                return f'the images lie one level too deep, in {self.root / clip / deeper}: give {self.root / clip}'
        return f'put the frames of each clip into a folder of its own there, as {", ".join(IMAGE_SUFFIXES)}'


FrameStore = FolderStore | LmdbStore


def open_store(root: str | Path, io_backend: Mapping[str, object] | None = None) -> FrameStore:
    """Opens the frames under ``root``: an LMDB database if the name ends in ``.lmdb``, otherwise a folder of clips.

    An LMDB database that contains ``tiles.json`` is a tile database. ``io_backend`` is BasicSR's optional
    ``{type: disk | lmdb}``.

    Raises:
        DBLRError: There is nothing usable at ``root``, or ``io_backend`` contradicts it.
    """
    is_lmdb = Path(root).suffix == '.lmdb'
    backend = str((io_backend or {}).get('type', 'lmdb' if is_lmdb else 'disk'))
    if backend not in ('disk', 'lmdb'):
        raise DBLRError(f"io_backend type '{backend}' is not one of disk, lmdb{nearest(backend, ('disk', 'lmdb'))}")
    if is_lmdb != (backend == 'lmdb'):
        actual = 'an LMDB database' if is_lmdb else 'a folder, as its name does not end in .lmdb'
        raise DBLRError(f"io_backend type is '{backend}', but {root} is {actual}; change one of them")
    if not is_lmdb:
        return FolderStore(root)
    return TileStore(root) if (Path(root) / TILES_JSON).is_file() else LmdbStore(root)


def frame_files(folder: Path) -> dict[str, str]:
    """Returns frame name -> file name of a folder's images, in natural order of the frames.

    Raises:
        DBLRError: There are two files for one frame, or a name is not UTF-8.
    """
    files: dict[str, str] = {}
    names = sorted(filter(is_image, os.listdir(folder)))
    refuse_undecodable(folder, names)
    for name in names:
        stem = os.path.splitext(name)[0]
        if stem in files:
            raise DBLRError(f"{folder} has two files of frame '{stem}': {files[stem]} and {name}; remove one of them")
        files[stem] = name
    return {stem: files[stem] for stem in sorted(files, key=natural)}
