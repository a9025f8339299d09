"""Image files: names, headers, completeness checks, and decoding, whole or in crops.

For a crop, PNG and JPEG files are decoded only down to its bottom. Both are decoded from the top, so reducing the
height in the header stops decoding early: on average after three fifths of a 1280x720 frame, for 128x128 crops. Pillow
does this, as it ignores the remaining bytes; its pixels are identical to OpenCV's.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from dblr_plugin.colour import luma_of_bgr, luma_of_jpeg
from dblr_plugin.errors import DBLRError

__all__ = [
    'IMAGE_SUFFIXES', 'MARGIN', 'TAIL_BYTES', 'JpegHeader', 'decode', 'decode_crop', 'header_size', 'imdecode',
    'inspected_size', 'is_hidden', 'is_image', 'is_jpeg', 'is_whole', 'looks_whole', 'luma_of', 'natural', 'opened',
    'parse_jpeg', 'refuse_undecodable', 'subfolders',
]  # fmt: skip

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
TAIL_BYTES = 1024
_SYSTEM_FOLDERS = ('__MACOSX', '@eaDir')  # in archives made by macOS, and on Synology's network drives
# magic numbers of TIFF and BigTIFF; tags; names of sample formats
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_BIG = 43
_BITS_PER_SAMPLE, _COLOURS, _PLANES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
_SEPARATE_ALPHA = 2
_PLAIN_COLOURS, _LAB = (1, 2), (8, 9, 10)  # grey with 0 for black, and RGB; L*a*b* in three codings
_SEPARATE_PLANES = 2
_SAMPLE_FORMATS = {1: 'unsigned', 2: 'signed', 3: 'floating-point', 4: 'undefined', 5: 'complex', 6: 'complex'}

_NUMBER = re.compile(r'((?:(?<=[._])-)?\d+)')


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts ``frame_10`` after ``frame_9``; names that differ only in leading zeros sort consistently.

    After a dot or an underscore, a minus is a sign, as in ``shot.-0012.png``, a frame before the first of a shot.
    """
    return [int(part) if i % 2 else part for i, part in enumerate(_NUMBER.split(name))], name


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name is not the user's own, but hidden or made by a system."""
    return name.startswith('.') or name in _SYSTEM_FOLDERS


def is_image(name: str) -> bool:
    """Returns whether a file of this name is a frame: a known suffix, ignoring case, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the folders in ``folder`` that are not hidden, in natural order.

    Raises:
        DBLRError: The folder cannot be listed, or a name is not UTF-8.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name)]
    except OSError as error:
        raise DBLRError(f'{error.filename} cannot be listed ({error.strerror}); fix or remove it') from error
    refuse_undecodable(folder, names)
    return sorted(names, key=natural)


def refuse_undecodable(folder: Path, names: Iterable[str]) -> None:
    """Raises DBLRError if a name in ``folder`` is not UTF-8, as keys, lists and logs cannot contain it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DBLRError(f'{folder} holds {os.fsencode(name)!r}, whose name is not UTF-8; rename it') from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens an image file for reading; raises DBLRError if that fails, or if the disk fails later on."""
    try:
        with open(path, 'rb') as file:
            yield file
    except OSError as error:
        raise DBLRError(f'{path} cannot be read ({error.strerror}); fix its permissions or its disk') from error


def decode(data: bytes | memoryview, where: str) -> np.ndarray:
    """Decodes one encoded image; ``where`` names it in messages.

    Pixels are returned as stored: EXIF orientation is not applied, so that the shape matches the header's size.

    Returns:
        uint8 (h, w, 3), BGR, as in cv2. Greyscale is repeated, alpha dropped, 16 bits are reduced to 8.

    Raises:
        DBLRError: The bytes are empty or not an image, or a TIFF has samples other than unsigned 8 or 16 bits.
    """
    if bytes(data[:4]) in _TIFF:
        _refuse_other_samples(io.BytesIO(data), where)
    image = imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        reason = 'cannot be decoded as an image' if len(data) else 'is empty'
        raise DBLRError(f'{where} {reason}; replace it with an intact copy')
    return image


def imdecode(data: bytes | memoryview, flags: int) -> np.ndarray | None:
    """Calls OpenCV's ``imdecode``; returns None for data that cannot be decoded."""
    tags = _tiff_tags(io.BytesIO(data)) if bytes(data[:4]) in _TIFF else {}
    try:
        if _SEPARATE_ALPHA in tags.get(_EXTRA_SAMPLES, ()) and tags.get(_BITS_PER_SAMPLE, (8,))[0] == 8:
            with Image.open(io.BytesIO(data)) as image:  # OpenCV would multiply colours by alpha
                return np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    except (cv2.error, OSError):  # such as a header that asks for more pixels than OpenCV allows
        return None


def _tiff_tags(file: BinaryIO) -> Mapping[int, Any]:
    """Returns the tags of a TIFF, even if Pillow cannot open it; empty for damaged files and other formats."""
    head = file.read(8)
    tags: Mapping[int, Any] = {}
    if head[:4] in _TIFF:
        with contextlib.suppress(Exception):  # Pillow's parser can raise anything on a damaged header
            directory = TiffImagePlugin.ImageFileDirectory_v2(head + (file.read(8) if _BIG in head[2:4] else b''))
            file.seek(directory.next)
            directory.load(file)
            tags = directory
    file.seek(0)
    return tags


def _refuse_other_samples(file: BinaryIO, where: str) -> None:
    """Raises DBLRError for a TIFF that OpenCV misreads or rejects: samples, planes or colours other than the usual."""
    tags = _tiff_tags(file)
    each, kinds = tags.get(_BITS_PER_SAMPLE, (8,)), set(tags.get(_SAMPLE_FORMAT, (1,)))
    bits = max(each)
    if bits > 16 or kinds != {1}:
        names = ' and '.join(_SAMPLE_FORMATS.get(kind, 'unknown') for kind in sorted(kinds))
        raise DBLRError(f'{where} is a TIFF of {bits}-bit {names} samples; convert it to unsigned ones of 8 or 16 bits')
    colours = tags.get(_COLOURS, _PLAIN_COLOURS[0])
    is_separate = tags.get(_PLANES) == _SEPARATE_PLANES and len(each) > 1
    if colours in _LAB or (bits > 8 and (is_separate or colours not in _PLAIN_COLOURS)):
        raise DBLRError(
            f'{where} is a TIFF of 16-bit planes, or of inverted grey, CMYK or L*a*b*, which is misread; convert it to '
            'interleaved RGB'
        )


def header_size(file: BinaryIO, where: str) -> tuple[int, int]:
    """Reads (height, width) from an image's header alone; raises DBLRError if the header is not readable."""
    _refuse_other_samples(file, where)
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except Image.DecompressionBombError as error:
        raise DBLRError(f'{where} has more pixels than Pillow accepts (179 million); shrink it') from error
    except Exception as error:  # Pillow's plugins can raise anything on a damaged header
        fix = 'replace it with an intact copy, or convert it to PNG'
        raise DBLRError(f'{where} has no readable image header; {fix}') from error


def looks_whole(head: bytes, tail: bytes, length: int) -> bool:
    """Returns whether the format's end, if it has one, is in place; OpenCV fills the missing part silently with grey.

    Args:
        head: The first 12 bytes or more.
        tail: The last ``TAIL_BYTES``; fewer if the image is shorter.
        length: Total number of bytes.
    """
    if head.startswith(b'\x89PNG'):
        return b'IEND' in tail
    if head.startswith(b'\xff\xd8'):
        return b'\xff\xd9' in tail
    if head.startswith(b'RIFF'):
        return length >= int.from_bytes(head[4:8], 'little') + 8
    if head.startswith(b'BM'):
        return length >= int.from_bytes(head[2:6], 'little')
    return True


def inspected_size(path: Path) -> tuple[int, int]:
    """Returns an image file's (height, width) after checking that it is not truncated, usually without decoding it.

    Raises:
        DBLRError: The file is missing, empty, truncated, or has no readable header.
    """
    with opened(path) as file:
        length = os.fstat(file.fileno()).st_size
        if length == 0:
            raise DBLRError(f'{path} is empty; replace it with an intact copy')
        size = header_size(file, str(path))
        file.seek(0)
        head = file.read(12)
        file.seek(max(0, length - TAIL_BYTES))
        # trailing garbage is legal and pushes the image's end out of the tail; then decoding decides
        if not looks_whole(head, file.read(), length) and not is_whole(file):
            raise DBLRError(f'{path} is truncated; replace it with an intact copy')
        return size


def is_whole(file: BinaryIO) -> bool:
    """Returns whether Pillow, which rejects truncated data, decodes every pixel; slow but certain."""
    try:
        with Image.open(file) as image:
            image.load()
    except Exception:  # as in header_size: any exception means that it cannot be decoded
        return False
    return True


# ---------------------------------------------------------------------- crops

MARGIN = 1  # rows: a JPEG's half-resolution chroma is interpolated with the next row's
PNG_START = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'
PLAIN_PNG = bytes((8, 2, 0, 0, 0))  # 8 bits, RGB, standard compression and filters, not interlaced

Size = tuple[int, int]


def decode_crop(
    data: bytes | memoryview, where: str, top: int, left: int, size: int, y_only: bool
) -> tuple[np.ndarray, Size]:
    """Decodes one square crop of an image.

    Args:
        data: The encoded image, which messages call ``where``.
        top, left, size: The square, in pixels, within the image.
        y_only: Return luma only.

    Returns:
        The crop, uint8 (size, size, 3) BGR or, with ``y_only``, as from :func:`luma_of`; and the image's (height,
        width).

    Raises:
        DBLRError: The bytes are empty or not an image.
    """
    shortened = _end_after(data, top + size + MARGIN)
    if shortened is not None:
        upper, frame_size = shortened
        part = _decode_box(upper, (left, top, left + size, top + size), y_only and is_jpeg(data))
        if part is not None:
            return luma_of(part) if y_only else part, frame_size
    image = decode(data, where)
    part = image[top : top + size, left : left + size]
    return luma_of(part) if y_only else part, image.shape[:2]


def luma_of(part: np.ndarray) -> np.ndarray:
    """Returns Y, float32 (h, w, 1) in [16/255, 235/255], of uint8 BGR (h, w, 3) or a JPEG's Y channel (h, w)."""
    return luma_of_jpeg(part) if part.ndim == 2 else luma_of_bgr(part)


def _end_after(data: bytes | memoryview, rows: int) -> tuple[bytes, Size] | None:
    """Returns the image with its header's height limited to ``rows``, and its true size; None for other formats.

    A progressive JPEG is coded in several passes from the top, so it is not shortened.
    """
    if data[:16] == PNG_START and data[24:29] == PLAIN_PNG:
        width, height = struct.unpack_from('>II', data, 16)
        header = b''.join((data[12:20], struct.pack('>I', min(rows, height)), data[24:29]))
        return b''.join((data[:12], header, struct.pack('>I', zlib.crc32(header)), data[33:])), (height, width)
    if not is_jpeg(data):
        return None
    try:
        jpeg = parse_jpeg(data)
    except ValueError:
        return None
    height = struct.pack('>H', min(rows, jpeg.height) if jpeg.sequential else jpeg.height)
    return b''.join((data[: jpeg.size_at], height, data[jpeg.size_at + 2 :])), (jpeg.height, jpeg.width)


def _decode_box(data: bytes, box: tuple[int, int, int, int], grey: bool) -> np.ndarray | None:
    """Decodes a box (left, top, right, bottom) to uint8 (h, w, 3) BGR or (h, w) grey; None if Pillow cannot."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if grey:
                image.draft('L', None)
            if image.mode not in ('L', 'RGB'):
                return None
            part = np.asarray(image.crop(box))
    except Exception:  # Pillow's plugins can raise anything; decoding the whole image then gives the message
        return None
    if grey and part.ndim == 2:
        return part
    return cv2.cvtColor(part, cv2.COLOR_GRAY2BGR if part.ndim == 2 else cv2.COLOR_RGB2BGR)


_START_OF_SCAN = 0xDA
_FRAME_STARTS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}


@dataclass(frozen=True)
class JpegHeader:
    """Contents of the markers before a JPEG's first scan: sizes in pixels, and offsets in bytes."""

    height: int
    width: int
    unit_height: int  # of the minimum coded unit (MCU)
    unit_width: int
    sequential: bool  # one pass from top to bottom, with Huffman coding
    size_at: int  # offset of the height (uint16), which the width follows
    scan_header_at: int
    scan_at: int


def is_jpeg(data: bytes | memoryview) -> bool:
    """Returns whether encoded bytes start like a JPEG."""
    return data[:3] == b'\xff\xd8\xff'


def parse_jpeg(data: bytes | memoryview) -> JpegHeader:
    """Reads the markers of a JPEG; raises ValueError if they are damaged or there are not 1 or 3 components."""
    position, frame, kind = 2, None, None
    try:
        while True:
            if data[position] != 0xFF:
                raise ValueError('no JPEG')
            marker = data[position + 1]
            if marker == 0xFF:  # fill byte
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
    """Returns (height, width) of the MCU, from the sampling factors that follow the size."""
    count = data[size_at + 4]
    if count not in (1, 3):
        raise ValueError(f'{count} components')
    if count == 1:  # a single component is not interleaved: its MCU is one block, whatever its sampling factor
        return 8, 8
    factors = bytes(data[size_at + 6 : size_at + 5 + 3 * count : 3])
    return 8 * max(factor & 15 for factor in factors), 8 * max(factor >> 4 for factor in factors)
