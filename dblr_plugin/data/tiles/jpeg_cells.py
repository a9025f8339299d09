"""Cells of JPEG frames: pieces of the source's coefficients that join to the JPEG of any rectangle of cells.

JPEG compresses units (MCUs) of 8x8 pixels, or 16x16 with colour at half resolution, and allows restart markers at
regular intervals, behind which decoding starts afresh. Here each cell is what lies between two such markers: a strip
of units, one unit high. Strips of any rectangle of cells, joined by such markers under the source's header with a new
size, are a complete JPEG file. So cells, with their places and checksums, add 2 % to the source's bytes, and a crop of
128x128 decodes less than twice its own pixels.

At the edge of such a file a decoder interpolates colour of half resolution as at the edge of a picture, and there,
one pixel of colour deep, it differs from the source's decoding. A margin of one luma pixel around a crop makes sure
that the cells with the neighbouring colour are read as well: the crop equals the source's to the bit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import cv2
import numpy as np

from dblr_plugin.data.jpeg_header import parse_jpeg
from dblr_plugin.data.tiles.format import JPEG, FrameHead
from dblr_plugin.data.tiles.jpeg_transform import crop_losslessly

__all__ = ['MARGIN', 'cut_jpeg', 'decode_jpeg']

MARGIN = 1  # luma pixels
CELL_WIDTH = 64  # about this many pixels: of 32, 64 and 128 the fastest to read

_EOI, _DRI = b'\xff\xd9', b'\xff\xdd\0\4'
_RESTARTS = [bytes((0xFF, 0xD0 + number)) for number in range(8)]


def cut_jpeg(data: bytes) -> tuple[FrameHead, list[list[bytes]]]:
    """Cuts a JPEG file into cells without touching its coefficients.

    Args:
        data: The file, baseline or progressive, with any metadata, which is left out.

    Returns:
        The head, its bundle still 1, and the columns of cells.

    Raises:
        ValueError: The file is damaged or of a kind that cannot be cut.
        DBLRError: The package that cuts is missing.
    """
    source = parse_jpeg(data)
    units = _units_in_a_cell(-(-source.width // source.unit_width), CELL_WIDTH // source.unit_width)
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
    """Joins a rectangle of cells to a JPEG file.

    Args:
        head: The frame's.
        columns: The rectangle's columns of cells.
        rows, lefts: Which rows and columns of the frame they are.
    """
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
    """Decodes a rectangle of cells; arguments as in :func:`_join`.

    Returns:
        uint8 (h, w, 3) BGR, or with ``grey`` (h, w), the JPEG's Y channel. Along edges that are not the frame's, the
        outermost ``MARGIN`` of BGR can differ from the frame's own.

    Raises:
        ValueError: The cells are damaged.
    """
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(_join(head, columns, rows, lefts), np.uint8), flags)
    if image is None:
        raise ValueError('no JPEG')
    return image


def _units_in_a_cell(units: int, wanted: int) -> int:
    """Returns the divisor of ``units``, a row's, that is nearest to ``wanted``: restart intervals are all alike."""
    return min((n for n in range(1, 2 * wanted + 1) if units % n == 0), key=lambda n: abs(n - wanted))
