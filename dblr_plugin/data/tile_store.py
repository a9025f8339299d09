"""Frames in tile databases: a crop reads and decodes little more than its own pixels."""

from __future__ import annotations

import json
from pathlib import Path

import lmdb
import numpy as np

from dblr_plugin.data.crops import cut
from dblr_plugin.data.lmdb_store import LmdbStore, shared_environment
from dblr_plugin.data.tile_cells import MARGIN, decode_jpeg, decode_pixels
from dblr_plugin.data.tile_format import JPEG, PIXELS, TILES_JSON, VERSION, FrameHead, load_fast, unpack_cells
from dblr_plugin.errors import DBLRError

__all__ = ['TileStore']


class TileStore(LmdbStore):
    """Frames of clips in a database written by :func:`~dblr_plugin.data.lmdb_writer.write_tiles`.

    Pixels are those of the source, to the bit. Can be pickled and forked at any time, as an LmdbStore can.

    Args:
        root: The ``.lmdb`` folder, with ``tiles.json`` inside.

    Raises:
        DBLRError: As in LmdbStore; or the database has another version, or needs a package that is missing.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        path = self.root / TILES_JSON
        try:
            marker = json.loads(path.read_text(encoding='utf-8'))
            version, has_pixels = marker['version'], PIXELS in marker['codecs']
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DBLRError(f'{path} cannot be read ({error}); write the database again') from error
        if version != VERSION:
            raise DBLRError(f'{self.root} has tiles of version {version}, not {VERSION}; write the database again')
        if has_pixels:
            load_fast('zstandard')

    def inspect(self, clip: str, frame: str) -> tuple[int, int]:
        """Returns (height, width) after checking the frame's head; the cells are checked when they are read.

        Raises:
            DBLRError: The head is missing or damaged.
        """
        with shared_environment(self.root).begin(buffers=True) as transaction:
            self._head(transaction, clip, frame)
        return self.size(clip, frame)

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Decodes one frame.

        Returns:
            uint8 (h, w, 3), BGR.

        Raises:
            DBLRError: Cells are missing or damaged.
        """
        return self._read_rectangle(clip, frame, 0, 0, *self.size(clip, frame), grey=False)

    def read_crop(self, clip: str, frame: str, top: int, left: int, size: int, y_only: bool = False) -> np.ndarray:
        """Decodes the cells around one square crop of a frame, as :meth:`LmdbStore.read_crop` does the whole frame."""
        return cut(self._read_rectangle(clip, frame, top, left, size, size, y_only), 0, 0, size, y_only)

    def _read_rectangle(
        self, clip: str, frame: str, top: int, left: int, height: int, width: int, grey: bool
    ) -> np.ndarray:
        """Returns uint8 (height, width, 3) BGR; with ``grey``, of a JPEG source (height, width), its Y channel."""
        with shared_environment(self.root).begin(buffers=True) as transaction:
            head = self._head(transaction, clip, frame)
            is_jpeg = head.codec == JPEG
            rows, columns = head.cells_around(top, left, height, width, MARGIN if is_jpeg else 0)
            try:
                cells = [self._cells(transaction, clip, frame, head, column, rows) for column in columns]
                image = decode_jpeg(head, cells, rows, columns, grey) if is_jpeg else decode_pixels(cells)
            except ValueError as error:
                raise self._damaged(clip, frame, error) from error
        top, left = top - rows.start * head.cell_height, left - columns.start * head.cell_width
        return image[top : top + height, left : left + width]

    def _head(self, transaction: lmdb.Transaction, clip: str, frame: str) -> FrameHead:
        try:
            head = FrameHead.unpack(self._value(transaction, f'{clip}/{frame}'))
        except ValueError as error:
            raise self._damaged(clip, frame, error) from error
        if (head.height, head.width) != self.size(clip, frame):
            raise self._damaged(clip, frame, ValueError('meta_info.txt has another size'))
        return head

    def _cells(
        self, transaction: lmdb.Transaction, clip: str, frame: str, head: FrameHead, column: int, rows: range
    ) -> list[memoryview]:
        """Returns the encoded cells of some rows of one column."""
        bundle, place = divmod(column, head.bundle)
        value = self._value(transaction, f'{clip}/{frame}/{bundle}')
        return unpack_cells(value, place * head.rows + rows.start, len(rows))

    def _damaged(self, clip: str, frame: str, error: ValueError) -> DBLRError:
        return DBLRError(f"frame '{clip}/{frame}' of {self.root} is damaged ({error}); write the database again")
