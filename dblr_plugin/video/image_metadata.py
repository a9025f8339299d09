"""Encodes image files with the metadata of another file, which may be of another format."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from dblr_plugin.errors import DBLRError
from dblr_plugin.video.frames import eight_bits

__all__ = ['COLOUR_TAGS', 'DEEP_FORMATS', 'DESCRIBED', 'EXIF', 'PROFILE', 'ImageMetadata', 'colour_chunk', 'encoded']

PROFILE, EXIF, COLOUR_TAGS = 'ICC profile', 'Exif', 'PNG colour tags'
#: Suffixes of the formats that hold 16 bits.
DEEP_FORMATS = ('.png', '.tif', '.tiff')
_JPEG = {'format': 'JPEG', 'quality': 98, 'subsampling': 0}
_BY_PILLOW: dict[str, dict[str, Any]] = {
    '.jpg': _JPEG, '.jpeg': _JPEG, '.webp': {'format': 'WEBP', 'lossless': True, 'quality': 70},
}  # fmt: skip
_JPEG_SEGMENT = 65533  # bytes
#: Suffixes of the formats into which colour profile and Exif are written.
DESCRIBED = (*DEEP_FORMATS, *_BY_PILLOW)

_DIRECTORIES = (0x8769, 0x8825)  # Exif's own and GPS
_PROFILE_TAG = 0x8773
_STRIPS, _STRIP_BYTES = 0x111, 0x117
# tags that describe the picture rather than its storage or orientation: description, maker, model, resolution (3),
# software, date, artist, host, ratings (2), copyright, and Windows' five
_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_OF_THE_FILE = (0xA002, 0xA003, 0xA005)  # in the Exif directory: width, height, and a pointer
_OTHER = {'xmp': 'XMP', 'photoshop': 'IPTC', 'comment': 'comment'}

# PNG's chunks that say how its numbers are shown: matrix and transfer (HDR among them), and dots per inch
_SHOWN = (b'cICP', b'mDCV', b'cLLI', b'gAMA', b'cHRM', b'sRGB', b'pHYs')
_UNSPECIFIED = 2
_WIDE_PRIMARIES = (9, 11, 12)  # BT.2020, DCI-P3, Display P3
_HDR_TRANSFERS = (16, 18)  # PQ, HLG
# what they say about sRGB, as which images without them are shown
_SRGB = {b'gAMA': (45455,), b'cHRM': (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)}


@dataclass(frozen=True)
class ImageMetadata:
    """Metadata of one file.

    Attributes:
        profile: The ICC profile, if it is for RGB; empty for none.
        exif: The Exif data that apply to the restored, upright image; None for none.
        left_out: Names of any other metadata.
        chunks: A PNG's chunks about how it is shown, as they are.
        has_colour_tags: Whether these chunks say anything but sRGB.
    """

    profile: bytes = b''
    exif: Image.Exif | None = None
    left_out: tuple[str, ...] = ()
    chunks: bytes = b''
    has_colour_tags: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> ImageMetadata:
        """Returns the metadata of an opened image."""
        left_out = {name for key, name in _OTHER.items() if image.info.get(key)}
        chunks, has_colour_tags = b'', False
        if image.format == 'PNG':
            chunks, has_colour_tags, has_text = _read_png(image)
            left_out |= {'text'} if has_text else set()
        profile = image.info.get('icc_profile') or b''
        if profile and profile[16:20] != b'RGB ':
            left_out.add(f'{profile[16:20].decode("ascii", "replace").strip()} {PROFILE}')
            profile = b''
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings('error', module='PIL')
                exif = _described(_with_resolution(image))
        except Exception:  # Pillow's parser raises or warns of anything on damaged data
            exif = None
            left_out.add(f'damaged {EXIF}')
        return cls(profile, exif, tuple(sorted(left_out)), chunks, has_colour_tags)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of all the metadata."""
        held = {PROFILE: self.profile, EXIF: self.exif is not None, COLOUR_TAGS: self.has_colour_tags}
        return (*(name for name, is_there in held.items() if is_there), *self.left_out)


def _read_png(image: Image.Image) -> tuple[bytes, bool, bool]:
    """Returns the chunks about how the image is shown, whether they say anything but sRGB, and whether there is text.

    Also reads the Exif data, which Pillow leaves unread if they follow the pixels.
    """
    chunks, has_colour_tags, has_text = b'', False, False
    image.info.setdefault('exif', b'')
    with open(image.filename, 'rb') as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack('>I4s', head)
            has_text |= kind in (b'tEXt', b'zTXt', b'iTXt')
            if kind == b'eXIf':
                image.info['exif'] = file.read(length)
                file.seek(4, 1)
            elif kind in _SHOWN:
                data = file.read(length)
                chunks += head + data + file.read(4)
                if kind in _SRGB:
                    has_colour_tags |= data != struct.pack(f'>{len(_SRGB[kind])}I', *_SRGB[kind])
                else:
                    has_colour_tags |= kind not in (b'sRGB', b'pHYs')
            else:
                file.seek(length + 4, 1)
    return chunks, has_colour_tags, has_text


def _with_resolution(image: Image.Image) -> Image.Exif:
    """Returns the Exif data, with the dots per inch that a JPEG file may have in its header alone."""
    exif = image.getexif()
    if image.format == 'JPEG' and 'jfif_density' in image.info and 'dpi' in image.info and _X_RESOLUTION not in exif:
        exif[_X_RESOLUTION], exif[_Y_RESOLUTION] = image.info['dpi']
        exif[_RESOLUTION_UNIT] = 2  # per inch
    return exif


def _described(source: Image.Exif) -> Image.Exif | None:
    """Returns the part of Exif data that describes the picture, None if there is none."""
    exif = Image.Exif()
    for tag in _TAGS:
        if tag in source:
            exif[tag] = source[tag]
    for directory in _DIRECTORIES:
        inner = {tag: value for tag, value in source.get_ifd(directory).items() if tag not in _OF_THE_FILE}
        exif.get_ifd(directory).update(inner)
    exif.tobytes()  # raises for values of wrong types
    return exif if len(exif) or any(map(exif.get_ifd, _DIRECTORIES)) else None


def encoded(pixels: np.ndarray, path: Path, metadata: ImageMetadata) -> bytes:
    """Returns the content of an image file: JPEG of quality 98 without chroma subsampling, or lossless.

    Pillow writes JPEG and WebP. It cannot write 16-bit RGB, so OpenCV writes the others, and the metadata are added.

    Args:
        pixels: RGB (h, w, 3), uint8 or uint16.
        path: The file, whose suffix selects the format.
        metadata: What to write if the format is one of :data:`DESCRIBED`.

    Raises:
        DBLRError: The format does not hold as many pixels, or as much Exif data.
    """
    suffix = path.suffix.lower()
    if suffix not in DEEP_FORMATS:
        pixels = eight_bits(pixels)
    exif = b'' if metadata.exif is None else metadata.exif.tobytes()
    if suffix in ('.jpg', '.jpeg') and len(exif) > _JPEG_SEGMENT:
        raise DBLRError(f'{path}: the Exif data of its source are too large for JPEG; give .png, .tif or .webp')
    try:
        if suffix in _BY_PILLOW:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, icc_profile=metadata.profile, exif=exif, **_BY_PILLOW[suffix])
            return file.getvalue()
        is_done, codes = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    except (OSError, ValueError):
        is_done = False
    if not is_done:
        height, width = pixels.shape[:2]
        raise DBLRError(f'{path}: {suffix} cannot hold {width}x{height} pixels; make .png files of the source first')
    data = codes.tobytes()
    if suffix == '.png':
        return _in_png(data, metadata)
    return _in_tiff(data, metadata) if suffix in DEEP_FORMATS and (metadata.profile or exif) else data


def colour_chunk(primaries: int, transfer: int) -> bytes:
    """Returns PNG's chunk for RGB of HDR or wide-gamut video, which would look pale as sRGB; empty for other videos.

    The numbers are FFmpeg's, which are those of ITU-T H.273.
    """
    is_known = _UNSPECIFIED not in (primaries, transfer)
    is_other = primaries in _WIDE_PRIMARIES or transfer in _HDR_TRANSFERS
    return _chunk(b'cICP' + bytes((primaries, transfer, 0, 1))) if is_known and is_other else b''


def _chunk(part: bytes) -> bytes:
    """Returns a chunk of PNG, from its kind and data."""
    return struct.pack('>I', len(part) - 4) + part + struct.pack('>I', zlib.crc32(part))


def _in_png(data: bytes, metadata: ImageMetadata) -> bytes:
    """Inserts chunks after the signature and the header."""
    chunks = metadata.chunks
    if metadata.profile:
        chunks += _chunk(b'iCCP' + b'ICC profile\0\0' + zlib.compress(metadata.profile))
    if metadata.exif is not None:
        chunks += _chunk(b'eXIf' + metadata.exif.tobytes().removeprefix(b'Exif\0\0'))  # which only JPEG has
    return data[:33] + chunks + data[33:]


def _in_tiff(data: bytes, metadata: ImageMetadata) -> bytes:
    """Writes a new directory, followed by the pixels."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    values = dict(directory)  # Pillow writes only the tags that have been read
    strips = [data[at : at + length] for at, length in zip(values[_STRIPS], values[_STRIP_BYTES], strict=True)]
    directory.tagtype[_STRIPS] = TiffImagePlugin.TiffTags.LONG
    directory[_STRIPS] = tuple(accumulate(map(len, strips[:-1]), initial=0))  # Pillow adds the rest
    if metadata.profile:
        directory.tagtype[_PROFILE_TAG] = TiffImagePlugin.TiffTags.UNDEFINED
        directory[_PROFILE_TAG] = metadata.profile
    if metadata.exif is not None:
        for tag, value in metadata.exif.items():
            directory[tag] = value
        for tag in _DIRECTORIES:
            if inner := metadata.exif.get_ifd(tag):
                directory[tag] = dict(inner)
    return data[:4] + struct.pack('<I', 8) + directory.tobytes(8) + b''.join(strips)
