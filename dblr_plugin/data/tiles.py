"""Frames of a tile database, cut into cells so small that reading a crop involves few other pixels.

Cells are stored column by column, so that a crop's cells in a column are contiguous. One value holds a bundle of
neighbouring columns: values occupy whole pages, which narrow columns would leave half empty. Keys: ``clip/frame`` for
the header, and ``clip/frame/0``, ``clip/frame/1`` and so on for the bundles.

JPEG cells are pieces of the source's own coefficients. JPEG compresses minimum coded units (MCUs) of 8x8 pixels, or
16x16 with half-resolution chroma, and allows restart markers at regular intervals, after which decoding starts over.
Here, each cell is the data between two such markers: a strip of MCUs, one MCU high. The strips of any rectangle of
cells, joined by restart markers under the source's header with a new size, form a complete JPEG file. Cells, with their
offsets and checksums, add 2 % to the source's size, and a 128x128 crop decodes less than twice its own pixels.

At the edge of such a file, a decoder interpolates half-resolution chroma as at the edge of an image; there, one chroma
pixel deep, the result differs from decoding the source. With ``images.MARGIN``, one luma pixel, around a crop, the
cells with the neighbouring chroma are read as well, so the crop is bit-identical to the source's.

Coefficients are cut by libjpeg-turbo's own transform, without decoding to pixels. The ``turbojpeg`` wheel includes
libjpeg-turbo 3. Its Python function reads the whole file for each rectangle, which would take seconds for a frame's 900
cells; the underlying C function, ``tj3Transform``, cuts all of them in one pass.

Pixel cells, of all other sources, are lossless, about the size of a PNG, and decode several times as fast. Green is
subtracted from blue and red, then each row from the one below; the small residuals are compressed by Zstandard, channel
by channel. Decoding takes one vectorised cumulative sum.
"""

from __future__ import annotations

import ctypes
import importlib
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import accumulate, pairwise
from types import ModuleType
from typing import ClassVar
from zlib import crc32

import cv2
import numpy as np

from dblr_plugin.data.images import parse_jpeg
from dblr_plugin.errors import DBLRError

__all__ = [
    'JPEG', 'PIXELS', 'TILES_JSON', 'VERSION', 'FrameHead', 'bundle_columns', 'crop_losslessly', 'cut_jpeg',
    'cut_pixels', 'decode_jpeg', 'decode_pixels', 'load_fast', 'pack_bundle', 'unpack_cells',
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
    """Frame header: what is needed to read a frame's cells; sizes in pixels."""

    codec: str  # JPEG or PIXELS
    height: int
    width: int
    cell_height: int  # the last cells of a row or column may be cut off by the frame's edge
    cell_width: int
    bundle: int  # columns in one value
    jpeg: tuple[bytes, bytes] = (b'', b'')  # a JPEG file before and after the size in its header, up to its scan

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
    """Returns the value of neighbouring columns: offsets of the cells and of the end (uint32), then the cells.

    Each cell is followed by its CRC-32, as a JPEG decoder does not detect damage.
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


# ---------------------------------------------------------------------- JPEG cells

# turbojpeg.h of libjpeg-turbo 3
_TJINIT_TRANSFORM = 2
_TJXOP_NONE = 0
_TJXOPT_CROP = 1 << 2
_TJXOPT_COPYNONE = 1 << 6


class _Transform(ctypes.Structure):
    """``tjtransform``: a rectangle (x, y, w, h), the operation, and the unused pointers of a filter."""

    _fields_ = (
        ('region', ctypes.c_int * 4), ('op', ctypes.c_int), ('options', ctypes.c_int), ('data', ctypes.c_void_p),
        ('custom_filter', ctypes.c_void_p),
    )  # fmt: skip


@cache
def _library() -> ctypes.CDLL:
    """Loads the TurboJPEG API through the extension module that links to it."""
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    try:
        library = ctypes.CDLL(load_fast('turbojpeg').__file__)
        library.tj3Init.restype = pointer
        library.tj3Transform.argtypes = (
            pointer, ctypes.c_char_p, size, ctypes.c_int, ctypes.POINTER(pointer), ctypes.POINTER(size),
            ctypes.POINTER(_Transform),
        )  # fmt: skip
        library.tj3GetErrorStr.argtypes, library.tj3GetErrorStr.restype = (pointer,), ctypes.c_char_p
        library.tj3Free.argtypes = library.tj3Destroy.argtypes = (pointer,)
    except (OSError, AttributeError) as error:
        raise DBLRError(
            f"turbojpeg's library cannot be used here ({error}); pip install --force-reinstall turbojpeg"
        ) from error
    return library


def crop_losslessly(data: bytes, regions: Sequence[tuple[int, int, int, int]]) -> list[bytes]:
    """Cuts regions (x, y, width, height) out of a JPEG file, with x and y multiples of its MCU size.

    Returns:
        A JPEG file for each region: baseline, with the standard Huffman tables and without metadata.

    Raises:
        ValueError: The library rejects the file as damaged or unsupported.
        DBLRError: The package ``turbojpeg`` is missing.
    """
    library = _library()
    transforms = (_Transform * len(regions))(
        *[_Transform((ctypes.c_int * 4)(*r), _TJXOP_NONE, _TJXOPT_CROP | _TJXOPT_COPYNONE) for r in regions]
    )
    buffers, sizes = (ctypes.c_void_p * len(regions))(), (ctypes.c_size_t * len(regions))()
    handle = library.tj3Init(_TJINIT_TRANSFORM)
    try:
        if library.tj3Transform(handle, data, len(data), len(regions), buffers, sizes, transforms):
            raise ValueError(library.tj3GetErrorStr(handle).decode())
        return [ctypes.string_at(buffer, size) for buffer, size in zip(buffers, sizes, strict=True)]
    finally:
        for buffer in buffers:
            library.tj3Free(buffer)
        library.tj3Destroy(handle)


CELL_WIDTH = 64  # approximate, in pixels; the fastest to read of 32, 64 and 128

_EOI, _DRI = b'\xff\xd9', b'\xff\xdd\0\4'
_RESTARTS = [bytes((0xFF, 0xD0 + number)) for number in range(8)]


def cut_jpeg(data: bytes) -> tuple[FrameHead, list[list[bytes]]]:
    """Cuts a JPEG file into cells without touching its coefficients.

    The file may be baseline or progressive; its metadata is dropped.

    Returns:
        The header, with bundle still 1, and the columns of cells.

    Raises:
        ValueError: The file is damaged or of a kind that cannot be cut.
        DBLRError: The package ``turbojpeg`` is missing.
    """
    source = parse_jpeg(data)
    in_a_row, wanted = -(-source.width // source.unit_width), CELL_WIDTH // source.unit_width
    # restart intervals must be equal, so a cell's MCUs divide those in a row
    units = min((n for n in range(1, 2 * wanted + 1) if in_a_row % n == 0), key=lambda n: abs(n - wanted))
    cell_height, cell_width = source.unit_height, units * source.unit_width
    tops, lefts = range(0, source.height, cell_height), range(0, source.width, cell_width)
    files = crop_losslessly(
        data,
        [(x, y, min(cell_width, source.width - x), min(cell_height, source.height - y)) for x in lefts for y in tops],
    )
    first = parse_jpeg(files[0])
    restarts = _DRI + struct.pack('>H', units)
    header = files[0][: first.scan_header_at] + restarts + files[0][first.scan_header_at : first.scan_at]
    cells = [file[first.scan_at : -len(_EOI)] for file in files]
    columns = [cells[start : start + len(tops)] for start in range(0, len(cells), len(tops))]
    jpeg = header[: first.size_at], header[first.size_at + 4 :]
    return FrameHead(JPEG, source.height, source.width, cell_height, cell_width, 1, jpeg), columns


def _join(head: FrameHead, columns: Sequence[Sequence[bytes | memoryview]], rows: range, lefts: range) -> bytes:
    """Joins a rectangle of cells into a JPEG file."""
    height = min(rows.stop * head.cell_height, head.height) - rows.start * head.cell_height
    width = min(lefts.stop * head.cell_width, head.width) - lefts.start * head.cell_width
    parts = [head.jpeg[0], struct.pack('>HH', height, width), head.jpeg[1]]
    for number, cell in enumerate(cell for row in zip(*columns, strict=True) for cell in row):
        parts += (cell, _RESTARTS[number % 8])
    parts[-1] = _EOI
    return b''.join(parts)


def decode_jpeg(
    head: FrameHead, columns: Sequence[Sequence[bytes | memoryview]], rows: range, lefts: range, grey: bool
) -> np.ndarray:
    """Decodes the columns of cells of a rectangle, which is at ``rows`` and ``lefts`` of the frame's cells.

    Returns:
        uint8 (h, w, 3) BGR, or with ``grey`` (h, w), the JPEG's Y channel. Along edges inside the frame, the outermost
        ``images.MARGIN`` of BGR can differ from the frame's pixels.

    Raises:
        ValueError: The cells are damaged.
    """
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(_join(head, columns, rows, lefts), np.uint8), flags)
    if image is None:
        raise ValueError('no JPEG')
    return image


# ---------------------------------------------------------------------- pixel cells

CELL = 64  # pixels; smaller cells cost more calls, larger ones decode pixels that a crop does not need
LEVEL = 1  # higher levels take longer and gain nothing here


def cut_pixels(image: np.ndarray) -> tuple[FrameHead, list[list[bytes]]]:
    """Compresses a frame, uint8 (h, w, 3) BGR, in cells; see :func:`cut_jpeg`.

    Raises:
        DBLRError: The package zstandard is missing.
    """
    height, width = image.shape[:2]
    head = FrameHead(PIXELS, height, width, CELL, CELL, 1)
    edges = ((0, -height % CELL), (0, -width % CELL), (0, 0))
    padded = np.pad(image, edges, mode='edge')
    cells = padded.reshape(head.rows, CELL, head.columns, CELL, 3).transpose(2, 0, 4, 1, 3).copy()
    cells[:, :, ::2] -= cells[:, :, 1:2]
    cells[:, :, :, 1:] = np.diff(cells, axis=3)
    compressor = load_fast('zstandard').ZstdCompressor(level=LEVEL)
    return head, [[compressor.compress(cell) for cell in column] for column in cells]


def decode_pixels(columns: Sequence[Sequence[bytes | memoryview]]) -> np.ndarray:
    """Decodes the columns of cells of a rectangle to uint8 (h, w, 3), BGR, including the padding of the last cells.

    Raises:
        ValueError: The cells are damaged.
    """
    zstandard = load_fast('zstandard')
    decompressor = zstandard.ZstdDecompressor()
    try:
        data = b''.join([decompressor.decompress(cell) for column in columns for cell in column])
    except zstandard.ZstdError as error:
        raise ValueError('no compressed pixels') from error
    cells = np.frombuffer(data, np.uint8).reshape(len(columns), -1, 3, CELL, CELL)
    # lay cells side by side before summing and merging channels: numpy is fast along long rows
    planes = cells.transpose(2, 1, 3, 0, 4).reshape(3, -1, CELL, len(columns) * CELL)
    planes = np.add.accumulate(planes, axis=2, dtype=np.uint8)
    planes[::2] += planes[1]
    return cv2.merge(list(planes.reshape(3, -1, planes.shape[-1])))
