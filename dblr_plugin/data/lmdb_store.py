"""Reads frames from LMDB databases, in BasicSR's format or tiled; each process opens a database at most once."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import lmdb
import numpy as np

from dblr_plugin.data import tiles
from dblr_plugin.data.clips import read_lmdb_meta
from dblr_plugin.data.images import MARGIN, TAIL_BYTES, decode, decode_crop, is_whole, looks_whole, luma_of
from dblr_plugin.data.tiles import VERSION, FrameHead
from dblr_plugin.errors import DBLRError

__all__ = ['LmdbStore', 'TileStore', 'shared_environment']

# keyed by the data file's device and inode, so that two spellings of a path share one database
_environments: dict[tuple[int, int], lmdb.Environment] = {}
_lock = threading.Lock()


def shared_environment(path: Path) -> lmdb.Environment:
    """Returns this process's only environment for the database ``path``, opened read-only on first use.

    lmdb >= 2.3 refuses to open a database twice in one process, so all stores share one environment.

    Raises:
        DBLRError: The database is missing, damaged, or opened by other code in this process.
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
    if length < needed:  # reading a page beyond the end of the file would kill the process (SIGBUS)
        environment.close()
        raise DBLRError(f'{path}/data.mdb is truncated: {length} of {needed} bytes; copy or write it again')
    return environment


def _close_inherited() -> None:
    """Closes a forked child's environments, which LMDB forbids to use and which keep it from opening them again."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held the old one
    for environment in _environments.values():
        environment.close()
    _environments.clear()


os.register_at_fork(after_in_child=_close_inherited)


class LmdbStore:
    """Frames of clips in ``x.lmdb/{data.mdb, lock.mdb, meta_info.txt}``, under keys ``clip/frame``.

    Holds no environment, so it can be pickled and forked at any time.

    Args:
        root: The ``.lmdb`` folder.

    Raises:
        DBLRError: The folder or its ``meta_info.txt`` is missing, or ``meta_info.txt`` has a malformed line.
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

    def source_bytes(self) -> int:
        """Returns the total size of the frames' files, in bytes, without reading them.

        Raises:
            DBLRError: The database is unreadable.
        """
        try:
            with shared_environment(self.root).begin(buffers=True) as transaction:
                return sum(len(value) for _, value in transaction.cursor())
        except lmdb.Error as error:
            raise DBLRError(f'{self.root} is unreadable ({error}); write it again or copy it') from error

    def where(self, clip: str, frame: str) -> str:
        """Returns a path-like name for a frame; its last part is the frame's name."""
        return f'{self.root}/{clip}/{frame}'

    def inspect(self, clip: str, frame: str) -> tuple[int, int]:
        """Returns (height, width) after checking that the value exists and is complete, usually without decoding it.

        Raises:
            DBLRError: The key is missing, or its value is empty or truncated.
        """
        with shared_environment(self.root).begin(buffers=True) as transaction:
            value = self._value(transaction, f'{clip}/{frame}')
            # slices of the memory map, so only the pages at both ends are read
            whole = looks_whole(bytes(value[:12]), bytes(value[-TAIL_BYTES:]), len(value))
            if not value or not (whole or is_whole(io.BytesIO(value))):
                raise DBLRError(f"key '{clip}/{frame}' of {self.root} is empty or truncated; write the database again")
        return self._sizes[clip][frame]

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Decodes one frame to uint8 (h, w, 3), BGR.

        Raises:
            DBLRError: The key is missing, its value cannot be decoded, or its size differs from ``meta_info.txt``.
        """
        with shared_environment(self.root).begin(buffers=True) as transaction:
            image = decode(self._value(transaction, f'{clip}/{frame}'), self._name(clip, frame))
        self._check_size(clip, frame, image.shape[:2])
        return image

    def read_crop(self, clip: str, frame: str, top: int, left: int, size: int, y_only: bool = False) -> np.ndarray:
        """Decodes one square crop of a frame.

        Args:
            clip, frame: The frame.
            top, left, size: The square, in pixels, within the frame.
            y_only: Return luma only.

        Returns:
            uint8 (size, size, 3) BGR; with ``y_only`` float32 (size, size, 1), BasicSR's Y in [16/255, 235/255], taken
            from a JPEG's own Y channel (see :mod:`~dblr_plugin.colour`), or computed exactly from BGR otherwise.

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
        if size != self._sizes[clip][frame]:
            raise DBLRError(
                f'{self._name(clip, frame)} is {size} (h, w), but meta_info.txt says {self._sizes[clip][frame]}; write '
                'the database again'
            )

    def _value(self, transaction: lmdb.Transaction, key: str) -> memoryview:
        try:
            value = transaction.get(key.encode())
        except lmdb.Error as error:
            raise DBLRError(f"key '{key}' of {self.root} is unreadable ({error}); copy it again") from error
        if value is None:
            raise DBLRError(f"key '{key}' is not in {self.root}; write the database again")
        assert isinstance(value, memoryview)  # all transactions here use buffers=True
        return value


class TileStore(LmdbStore):
    """Frames of clips in a database written by :func:`~dblr_plugin.data.lmdb_writer.write_tiles`.

    Reading a crop decodes little more than its own pixels, which are bit-identical to the source's.

    Args:
        root: The ``.lmdb`` folder, with ``tiles.json`` inside.

    Raises:
        DBLRError: As in LmdbStore; or the database has an unsupported version, or needs a package that is missing.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        path = self.root / tiles.TILES_JSON
        try:
            marker = json.loads(path.read_text(encoding='utf-8'))
            version, has_pixels = marker['version'], tiles.PIXELS in marker['codecs']
            self._source_bytes: int = marker.get('source_bytes', 0)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DBLRError(f'{path} cannot be read ({error}); write the database again') from error
        if version != VERSION:
            raise DBLRError(f'{self.root} has tiles of version {version}, not {VERSION}; write the database again')
        if has_pixels:
            tiles.load_fast('zstandard')

    def source_bytes(self) -> int:
        """Returns the total size of the files that the database was written from, in bytes."""
        return self._source_bytes

    def inspect(self, clip: str, frame: str) -> tuple[int, int]:
        """Returns (height, width); raises DBLRError if the header is damaged. Cells are checked when they are read."""
        with shared_environment(self.root).begin(buffers=True) as transaction:
            self._head(transaction, clip, frame)
        return self._sizes[clip][frame]

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Decodes one frame to uint8 (h, w, 3), BGR; raises DBLRError if cells are missing or damaged."""
        return self._read_rectangle(clip, frame, 0, 0, *self._sizes[clip][frame], grey=False)

    def read_crop(self, clip: str, frame: str, top: int, left: int, size: int, y_only: bool = False) -> np.ndarray:
        """Decodes one square crop of a frame from the cells that cover it; see :meth:`LmdbStore.read_crop`."""
        part = self._read_rectangle(clip, frame, top, left, size, size, y_only)
        return luma_of(part) if y_only else part

    def _read_rectangle(
        self, clip: str, frame: str, top: int, left: int, height: int, width: int, grey: bool
    ) -> np.ndarray:
        """Returns uint8 (height, width, 3) BGR; with ``grey`` and a JPEG source (height, width), its Y channel."""
        with shared_environment(self.root).begin(buffers=True) as transaction:
            head = self._head(transaction, clip, frame)
            is_jpeg = head.codec == tiles.JPEG
            rows, columns = head.cells_around(top, left, height, width, MARGIN if is_jpeg else 0)
            try:
                cells = [self._cells(transaction, clip, frame, head, column, rows) for column in columns]
                image = tiles.decode_jpeg(head, cells, rows, columns, grey) if is_jpeg else tiles.decode_pixels(cells)
            except ValueError as error:
                raise self._damaged(clip, frame, error) from error
        top, left = top - rows.start * head.cell_height, left - columns.start * head.cell_width
        return image[top : top + height, left : left + width]

    def _head(self, transaction: lmdb.Transaction, clip: str, frame: str) -> FrameHead:
        try:
            head = FrameHead.unpack(self._value(transaction, f'{clip}/{frame}'))
        except ValueError as error:
            raise self._damaged(clip, frame, error) from error
        if (head.height, head.width) != self._sizes[clip][frame]:
            raise self._damaged(clip, frame, ValueError('meta_info.txt has another size'))
        return head

    def _cells(
        self, transaction: lmdb.Transaction, clip: str, frame: str, head: FrameHead, column: int, rows: range
    ) -> list[memoryview]:
        """Returns the encoded cells of some rows of one column."""
        bundle, place = divmod(column, head.bundle)
        value = self._value(transaction, f'{clip}/{frame}/{bundle}')
        return tiles.unpack_cells(value, place * head.rows + rows.start, len(rows))

    def _damaged(self, clip: str, frame: str, error: ValueError) -> DBLRError:
        return DBLRError(f"frame '{clip}/{frame}' of {self.root} is damaged ({error}); write the database again")
