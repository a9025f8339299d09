"""The header of a JPEG file: what it takes to cut it, and to join the pieces, without decoding it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ['JpegHeader', 'is_jpeg', 'parse_jpeg']

_START_OF_SCAN = 0xDA
_FRAME_STARTS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}


@dataclass(frozen=True)
class JpegHeader:
    """What the markers before a JPEG's first scan say.

    Attributes:
        height, width: In pixels.
        unit_height, unit_width: The unit of compression (MCU), in pixels.
        sequential: Whether it is coded once from top to bottom, with Huffman's method.
        size_at: Where its height stands (uint16), and its width behind it.
        scan_header_at, scan_at: Where the first scan's header and that scan begin.
    """

    height: int
    width: int
    unit_height: int
    unit_width: int
    sequential: bool
    size_at: int
    scan_header_at: int
    scan_at: int


def is_jpeg(data: bytes | memoryview) -> bool:
    """Whether encoded bytes start as a JPEG does."""
    return data[:3] == b'\xff\xd8\xff'


def parse_jpeg(data: bytes | memoryview) -> JpegHeader:
    """Reads the markers of a JPEG; raises ValueError when they are damaged, or it has not one or three components."""
    position, frame, kind = 2, None, None
    try:
        while True:
            if data[position] != 0xFF:
                raise ValueError('no JPEG')
            marker = data[position + 1]
            if marker == 0xFF:  # filling
                position += 1
                continue
            end = position + 2 + struct.unpack_from('>H', data, position + 2)[0]
            if marker in _FRAME_STARTS:
                frame, kind = position + 5, marker
            if marker == _START_OF_SCAN and frame is not None:
                height, width = struct.unpack_from('>HH', data, frame)
                return JpegHeader(height, width, *_unit(data, frame), kind in _SEQUENTIAL, frame, position, end)
            position = end
    except (IndexError, struct.error) as error:
        raise ValueError('no JPEG') from error


def _unit(data: bytes | memoryview, size_at: int) -> tuple[int, int]:
    """Returns (height, width) of the unit of compression, from the sampling factors behind the size."""
    count = data[size_at + 4]
    if count not in (1, 3):
        raise ValueError(f'{count} components')
    if count == 1:  # a single component is not interleaved: whatever its factor, its unit is one block
        return 8, 8
    factors = bytes(data[size_at + 6 : size_at + 5 + 3 * count : 3])
    return 8 * max(factor & 15 for factor in factors), 8 * max(factor >> 4 for factor in factors)
