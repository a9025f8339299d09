"""Image files: names, headers, completeness checks and decoding."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from dblr_plugin.errors import DBLRError

__all__ = [
    'IMAGE_SUFFIXES', 'TAIL_BYTES', 'decode', 'header_size', 'imdecode', 'inspected_size', 'is_image', 'is_whole',
    'looks_whole', 'natural', 'opened', 'refuse_undecodable',
]  # fmt: skip

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
TAIL_BYTES = 1024
# magic numbers of TIFF and BigTIFF; tags; names of sample formats
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_BIG = 43
_BITS_PER_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 338, 339
_SEPARATE_ALPHA = 2
_SAMPLE_FORMATS = {1: 'unsigned', 2: 'signed', 3: 'floating-point', 4: 'undefined', 5: 'complex', 6: 'complex'}


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts ``frame_10`` after ``frame_9``; names that differ only in leading zeros sort consistently."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)], name


def is_image(name: str) -> bool:
    """Returns whether a file of this name is a frame: a known suffix, ignoring case, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')


def refuse_undecodable(folder: Path, names: Iterable[str]) -> None:
    """Raises DBLRError if a name in ``folder`` is not UTF-8, as keys, lists and logs cannot contain it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DBLRError(f'{folder} holds {os.fsencode(name)!r}, whose name is not UTF-8; rename it') from error


def opened(path: Path) -> BinaryIO:
    """Opens an image file for reading; raises DBLRError if that fails."""
    try:
        return open(path, 'rb')
    except OSError as error:
        raise DBLRError(f'{path} cannot be read ({error.strerror}); restore it') from error


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
    """Raises DBLRError for a TIFF with samples other than unsigned 8 or 16 bits, some of which OpenCV misreads."""
    tags = _tiff_tags(file)
    bits, kinds = max(tags.get(_BITS_PER_SAMPLE, (8,))), set(tags.get(_SAMPLE_FORMAT, (1,)))
    if bits > 16 or kinds != {1}:
        names = ' and '.join(_SAMPLE_FORMATS.get(kind, 'unknown') for kind in sorted(kinds))
        raise DBLRError(f'{where} is a TIFF of {bits}-bit {names} samples; convert it to unsigned ones of 8 or 16 bits')


def header_size(file: BinaryIO, where: str) -> tuple[int, int]:
    """Reads (height, width) from an image's header alone; raises DBLRError if the header is not readable."""
    _refuse_other_samples(file, where)
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except Image.DecompressionBombError as error:
        raise DBLRError(f'{where} has more pixels than Pillow opens, 179 million; shrink it') from error
    except Exception as error:  # Pillow's plugins can raise anything on a damaged header
        raise DBLRError(f'{where} has no readable image header; replace it with an intact copy') from error


def looks_whole(head: bytes, tail: bytes, length: int) -> bool:
    """Tests cheaply for truncation, from both ends of an encoded image.

    OpenCV silently fills the missing part of a truncated JPEG or PNG with grey, hence this check.

    Args:
        head: The first 12 bytes or more.
        tail: The last ``TAIL_BYTES``; fewer if the image is shorter.
        length: Total number of bytes.

    Returns:
        True if the format's end is in place, or if the format has no end to check for.
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
