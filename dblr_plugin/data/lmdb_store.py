"""Reads frames from LMDB databases in BasicSR's format; each process opens a database at most once."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import lmdb
import numpy as np

from dblr_plugin.data.clips import read_lmdb_meta
from dblr_plugin.data.crops import decode_crop
from dblr_plugin.data.images import TAIL_BYTES, decode, is_whole, looks_whole
from dblr_plugin.errors import DBLRError

__all__ = ['LmdbStore', 'shared_environment']

# keyed by the data file's device and inode: two spellings of a path are one database
_environments: dict[tuple[int, int], lmdb.Environment] = {}
_lock = threading.Lock()


def shared_environment(path: Path) -> lmdb.Environment:
    """Returns this process's only environment on the database ``path``, opened read-only on first use.

    lmdb >= 2.3 refuses to open a database twice in a process. All stores therefore share one environment.

    Raises:
        DBLRError: The database is missing, damaged, or held open by other code in this process.
    """
    try:
        stat = os.stat(path / 'data.mdb')
        with _lock:
            key = (stat.st_dev, stat.st_ino)
            if key not in _environments:
                _environments[key] = _open(path, stat.st_size)
            return _environments[key]
    except (lmdb.Error, OSError) as error:
        raise DBLRError(f'{path} cannot be opened as an LMDB database ({error}); write it again or copy it') from error


def _open(path: Path, length: int) -> lmdb.Environment:
    environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
    needed = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    if length < needed:  # reading a page behind the file's end would kill the process (SIGBUS)
        environment.close()
        raise DBLRError(f'{path}/data.mdb is truncated: {length} of {needed} bytes; copy or write it again')
    return environment


def _close_inherited() -> None:
    """Closes what a forked child inherited.

    Its own opening would be refused while the inherited environments are alive, and LMDB forbids using those across
    a fork. Closing them in the child leaves the parent's untouched.
    """
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held the old one
    for environment in _environments.values():
        environment.close()
    _environments.clear()


if hasattr(os, 'register_at_fork'):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_close_inherited)


class LmdbStore:
    """Frames of clips in ``x.lmdb/{data.mdb, lock.mdb, meta_info.txt}``, under keys ``clip/frame``.

    Holds no environment itself, so it can be pickled and forked at any time.

    Args:
        root: The ``.lmdb`` folder.

    Raises:
        DBLRError: The folder or its ``meta_info.txt`` is missing, or a line of the latter is malformed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DBLRError(f'{self.root} is not a folder; an LMDB database is a folder with data.mdb inside')
        self._sizes = read_lmdb_meta(self.root / 'meta_info.txt')
        if not self._sizes:
            raise DBLRError(f'{self.root} has no clips: its meta_info.txt is empty; write the database again')

    def clips(self) -> dict[str, tuple[str, ...]]:
        """Returns clip name -> frame names, both in natural order."""
        return {clip: tuple(sizes) for clip, sizes in self._sizes.items()}

    def where(self, clip: str, frame: str) -> str:
        """Returns a path-like name of the frame; its last part is the frame's name."""
        return f'{self.root}/{clip}/{frame}'

    def size(self, clip: str, frame: str) -> tuple[int, int]:
        """Returns (height, width) as ``meta_info.txt`` has it."""
        return self._sizes[clip][frame]

    def inspect(self, clip: str, frame: str) -> tuple[int, int]:
        """Returns (height, width) after checking that the value exists and is not cut short, without decoding it.

        Raises:
            DBLRError: The key is missing, or its value is empty or truncated.
        """
        with shared_environment(self.root).begin(buffers=True) as transaction:
            value = self._value(transaction, f'{clip}/{frame}')
            # slices of the memory map: only the pages at both ends are read
            whole = looks_whole(bytes(value[:12]), bytes(value[-TAIL_BYTES:]), len(value))
            if not value or not (whole or is_whole(io.BytesIO(value))):
                raise DBLRError(f"key '{clip}/{frame}' of {self.root} is empty or truncated; write the database again")
        return self.size(clip, frame)

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Decodes one frame.

        Returns:
            uint8 (h, w, 3), BGR.

        Raises:
            DBLRError: The key is missing, or its value cannot be decoded or has another size than
                ``meta_info.txt`` says.
        """
        with shared_environment(self.root).begin(buffers=True) as transaction:
            image = decode(self._value(transaction, f'{clip}/{frame}'), self._name(clip, frame))
        self._check_size(clip, frame, image.shape[:2])
        return image

    def read_crop(self, clip: str, frame: str, top: int, left: int, size: int, y_only: bool = False) -> np.ndarray:
        """Decodes one square crop of a frame.

        Args:
            clip, frame: Which frame.
            top, left, size: The square, in pixels, within the frame.
            y_only: Return brightness alone.

        Returns:
            uint8 (size, size, 3) BGR; with ``y_only`` float32 (size, size, 1), BasicSR's Y in [16/255, 235/255], which
            comes from a JPEG's own Y channel (see :mod:`~dblr_plugin.colour`) and else from BGR, exactly.

        Raises:
            DBLRError: As in :meth:`read`.
        """
        with shared_environment(self.root).begin(buffers=True) as transaction:
            value = self._value(transaction, f'{clip}/{frame}')
            crop, frame_size = decode_crop(value, self._name(clip, frame), top, left, size, y_only)
        self._check_size(clip, frame, frame_size)
        return crop

    def _name(self, clip: str, frame: str) -> str:
        return f"key '{clip}/{frame}' of {self.root}"

    def _check_size(self, clip: str, frame: str, size: tuple[int, int]) -> None:
        if size != self.size(clip, frame):
            raise DBLRError(
                f'{self._name(clip, frame)} is {size} (h, w), but meta_info.txt says {self.size(clip, frame)}; write '
                'the database again'
            )

    def _value(self, transaction: lmdb.Transaction, key: str) -> memoryview:
        try:
            value = transaction.get(key.encode())
        except lmdb.Error as error:
            raise DBLRError(f"key '{key}' of {self.root} is unreadable ({error}); copy it again") from error
        if value is None:
            raise DBLRError(f"key '{key}' is not in {self.root}; write the database again")
        assert isinstance(value, memoryview)  # as every transaction here is begun with buffers=True
        return value
