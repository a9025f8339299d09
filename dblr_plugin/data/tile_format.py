"""The format of a frame in a tile database.

A frame is cut into cells, small enough that reading a crop involves few other pixels. Cells are stored column by
column, so that a crop's cells in a column are contiguous. One value holds a bundle of neighbouring columns: values
occupy whole pages, which narrow columns would leave half empty. Keys: ``clip/frame`` for the header, and
``clip/frame/0``, ``clip/frame/1`` and so on for the bundles.

Cells of JPEG sources are pieces of the source's own coefficients; all others are losslessly compressed pixels: see
``tile_cells``.
"""

from __future__ import annotations

import importlib
import struct
from dataclasses import astuple, dataclass
from itertools import accumulate, pairwise
from types import ModuleType
from typing import ClassVar
from zlib import crc32

from dblr_plugin.errors import DBLRError

__all__ = [
    'JPEG', 'PIXELS', 'TILES_JSON', 'VERSION', 'FrameHead', 'bundle_columns', 'load_fast', 'pack_bundle',
    'unpack_cells',
]  # fmt: skip

TILES_JSON = 'tiles.json'
VERSION = 1
JPEG, PIXELS = 'jpeg', 'pixels'
CODECS = (JPEG, PIXELS)

# half of the last 4096-byte page is wasted on average: a twelfth of this size
BUNDLE_BYTES = 24 << 10
_CHECKSUM = struct.Struct('<I')


@dataclass(frozen=True)
class FrameHead:
    """Frame header: what is needed to read a frame's cells.

    Attributes:
        codec: JPEG or PIXELS.
        height, width: Size of the frame, in pixels.
        cell_height, cell_width: Size of a cell; the last cells of a row or column may be cut off by the frame's edge.
        bundle: Columns in one value.
        jpeg: The bytes of a JPEG file before and after the height and width in its header, up to its scan.
    """

    codec: str
    height: int
    width: int
    cell_height: int
    cell_width: int
    bundle: int
    jpeg: tuple[bytes, bytes] = (b'', b'')

    _FIXED: ClassVar[struct.Struct] = struct.Struct('<7I')

    @property
    def rows(self) -> int:
        """Number of cells in a column."""
        return -(-self.height // self.cell_height)

    @property
    def columns(self) -> int:
        """Number of cells in a row."""
        return -(-self.width // self.cell_width)

    def pack(self) -> bytes:
        """Returns the header in its stored form."""
        codec, *sizes, (before, after) = astuple(self)
        return self._FIXED.pack(CODECS.index(codec), *sizes, len(before)) + before + after

    @classmethod
    def unpack(cls, data: memoryview) -> FrameHead:
        """Reads a stored header; raises ValueError if it is not valid."""
        try:
            codec, *sizes, split = cls._FIXED.unpack_from(data)
            height, width, cell_height, cell_width, bundle = sizes
            jpeg = bytes(data[cls._FIXED.size :])
            parts = jpeg[:split], jpeg[split:]
            head = cls(CODECS[codec], height, width, cell_height, cell_width, bundle, parts)
        except (struct.error, IndexError) as error:
            raise ValueError('no frame header') from error
        if not all(sizes):
            raise ValueError('a size of 0')
        return head

    def cells_around(self, top: int, left: int, height: int, width: int, margin: int) -> tuple[range, range]:
        """Returns the rows and columns of the cells that cover a rectangle plus a margin, within the frame."""
        bottom, right = min(top + height + margin, self.height), min(left + width + margin, self.width)
        top, left = max(top - margin, 0), max(left - margin, 0)
        return (
            range(top // self.cell_height, -(-bottom // self.cell_height)),
            range(left // self.cell_width, -(-right // self.cell_width)),
        )


def bundle_columns(columns: list[list[bytes]]) -> int:
    """Returns how many columns to store in one value."""
    mean = sum(len(cell) for column in columns for cell in column) / len(columns)
    return min(max(1, round(BUNDLE_BYTES / mean)), len(columns))


def pack_bundle(columns: list[list[bytes]]) -> bytes:
    """Returns a value: the offsets of the cells and of the end (uint32, from the value's start), then the cells.

    Each cell is followed by its CRC-32, as a JPEG decoder does not detect damage.

    Args:
        columns: Neighbouring columns of encoded cells, from left to right and from top to bottom.
    """
    cells = [cell + _CHECKSUM.pack(crc32(cell)) for column in columns for cell in column]
    offsets = accumulate(map(len, cells), initial=4 * (len(cells) + 1))
    return struct.pack(f'<{len(cells) + 1}I', *offsets) + b''.join(cells)


def unpack_cells(bundle: memoryview, first: int, count: int) -> list[memoryview]:
    """Returns ``count`` consecutive cells of a bundle, starting at ``first``; raises ValueError if they are damaged."""
    cells = []
    try:
        offsets = struct.unpack_from(f'<{count + 1}I', bundle, 4 * first)
        for start, end in pairwise(offsets):
            cell = bundle[start : end - _CHECKSUM.size]
            if (crc32(cell),) != _CHECKSUM.unpack_from(bundle, end - _CHECKSUM.size):
                raise ValueError('a checksum does not fit')
            cells.append(cell)
    except struct.error as error:
        raise ValueError('cells are missing') from error
    return cells


def load_fast(name: str) -> ModuleType:
    """Imports a package from the extra ``fast``, which tile databases need.

    Raises:
        DBLRError: It is not installed, or does not load on this system.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DBLRError(f"tiles need the package {name} ({error}): pip install 'dblr_plugin[fast]'") from error
