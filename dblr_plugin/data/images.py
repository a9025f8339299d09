"""Image files: names, headers, completeness and pixels."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from dblr_plugin.errors import DBLRError

__all__ = [
    'IMAGE_SUFFIXES', 'TAIL_BYTES', 'decode', 'header_size', 'inspected_size', 'is_image', 'is_whole', 'looks_whole',
    'natural', 'opened', 'refuse_undecodable',
]  # fmt: skip

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
TAIL_BYTES = 1024
# TIFF's first bytes and tags
_TIFF = (b'II*\0', b'MM\0*')
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts ``frame_10`` after ``frame_9``; names that differ only in zeros keep a fixed order."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)], name


def is_image(name: str) -> bool:
    """Whether a file of this name is a frame: a known suffix in any case, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith('.')


def refuse_undecodable(folder: Path, names: Iterable[str]) -> None:
    """Raises DBLRError for a name in ``folder`` that is no UTF-8: keys, lists and logs could not hold it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DBLRError(f'{folder} holds {os.fsencode(name)!r}, whose name is not UTF-8; rename it') from error


def opened(path: Path) -> BinaryIO:
    """Opens an image file for reading; raises DBLRError where that fails."""
    try:
        return open(path, 'rb')
    except OSError as error:
        raise DBLRError(f'{path} cannot be read ({error.strerror}); restore it') from error


def decode(data: bytes | memoryview, where: str) -> np.ndarray:
    """Decodes one encoded image; ``where`` names it in messages.

    The pixels are taken as stored: an EXIF orientation is not applied, so that they agree with the header's size.

    Returns:
        uint8 (h, w, 3), BGR, as cv2 has it. Grey is repeated, alpha dropped, 16 bits are reduced to 8.

    Raises:
        DBLRError: The bytes are empty or no image, or a TIFF's samples are of another kind than 8 or 16 bits.
    """
    if bytes(data[:4]) in _TIFF:
        with contextlib.suppress(UnidentifiedImageError, OSError), Image.open(io.BytesIO(data)) as header:
            _refuse_other_samples(header, where)  # OpenCV takes negative numbers for large ones
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    except cv2.error:  # a header that asks for more pixels than OpenCV allows
        image = None
    if image is None:
        reason = 'cannot be decoded as an image' if len(data) else 'is empty'
        other = ', or convert it to 8 or 16 bits' if bytes(data[:4]) in _TIFF else ''
        raise DBLRError(f'{where} {reason}; replace it with an intact copy{other}')
    return image


def _refuse_other_samples(image: Image.Image, where: str) -> None:
    """Raises DBLRError for a TIFF of numbers with a sign or a fraction, or of more than 16 bits."""
    tags = getattr(image, 'tag_v2', {})
    bits, kinds = tags.get(_BITS_PER_SAMPLE, (8,)), tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
    if max(bits) > 16 or set(kinds) != {_UNSIGNED}:
        raise DBLRError(
            f'{where} is a TIFF of {max(bits)} bits a sample that is not plain 8 or 16 bits without a sign; convert it'
        )


def header_size(file: BinaryIO, where: str) -> tuple[int, int]:
    """Reads (height, width) from an image's header alone; raises DBLRError when there is no readable header."""
    try:
        with Image.open(file) as image:
            _refuse_other_samples(image, where)
            return image.height, image.width
    except DBLRError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsers meet in a damaged header
        raise DBLRError(f'{where} has no readable image header; replace it with an intact copy') from error


def looks_whole(head: bytes, tail: bytes, length: int) -> bool:
    """Cheap test for truncation, from both ends of an encoded image.

    OpenCV fills the missing part of a truncated JPEG or PNG with grey and says nothing, so somebody has to look.

    Args:
        head: The first 12 bytes or more.
        tail: The last ``TAIL_BYTES``; less when the image is shorter.
        length: Bytes in all.

    Returns:
        True when the format's end is in place, or when the format has no end that could be looked for.
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
    """Returns (height, width) of an image file after checking that it is not cut short, as a rule without decoding it.

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
        # garbage behind an image's end is legal and pushes that end out of the tail: decoding decides
        if not looks_whole(head, file.read(), length) and not is_whole(file):
            raise DBLRError(f'{path} is truncated; replace it with an intact copy')
        return size


def is_whole(file: BinaryIO) -> bool:
    """Slow and certain: whether Pillow, which refuses truncated data, decodes every pixel of the image."""
    try:
        with Image.open(file) as image:
            image.load()
    except Exception:  # the same as in header_size: any exception means that it cannot be decoded
        return False
    return True
