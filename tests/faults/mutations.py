"""Functions that damage files: they take the intact bytes and a random generator with a fixed seed."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import cv2
import numpy as np
from PIL import Image

__all__ = [
    'ANY_FILE',
    'ENDS_OF_IMAGES',
    'INSIDE_OF_CHECKPOINT',
    'INSIDE_OF_PNG',
    'OF_SAFETENSORS',
    'UNUSUAL_IMAGES',
    'Damage',
    'damage',
]

Damage = Callable[[bytes, Random], bytes]


def damage(path: Path, kind: Damage, seed: object = 0) -> None:
    """Damages a file at a place that depends on the seed and the kind. Other links to the file keep their content."""
    data = path.read_bytes()
    damaged = kind(data, Random(f'{kind.__name__} {seed}'))
    assert damaged != data
    path.unlink()
    path.write_bytes(damaged)


def empty(data: bytes, rng: Random) -> bytes:
    """A copy that was interrupted at its start."""
    return b''


def cut_early(data: bytes, rng: Random) -> bytes:
    """A copy that was interrupted within the first hundred bytes, where headers are."""
    return data[: rng.randrange(1, 100)]


def cut_anywhere(data: bytes, rng: Random) -> bytes:
    """An interrupted copy."""
    return data[: rng.randrange(len(data) // 10, len(data) * 9 // 10)]


def cut_late(data: bytes, rng: Random) -> bytes:
    """A copy that lacks its last bytes."""
    return data[: -rng.randrange(40, 90)]


def header_overwritten(data: bytes, rng: Random) -> bytes:
    """Noise in place of the bytes that identify the format."""
    return rng.randbytes(64) + data[64:]


def all_zeroed(data: bytes, rng: Random) -> bytes:
    """Zeros of the right length, as some file systems leave after a power cut."""
    return bytes(len(data))


def text_instead(data: bytes, rng: Random) -> bytes:
    """The web page that a failed download leaves."""
    return b'<!DOCTYPE html><html><title>404 Not Found</title></html>\n'


def zip_instead(data: bytes, rng: Random) -> bytes:
    """A zip archive with the name of the file that it contains."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('content', data)
    return file.getvalue()


def noise_instead(data: bytes, rng: Random) -> bytes:
    """Noise, like an encrypted file."""
    return rng.randbytes(len(data))


def block_zeroed(data: bytes, rng: Random) -> bytes:
    """A bad sector: 200 bytes in the middle half are zero."""
    start = rng.randrange(len(data) // 4, len(data) * 3 // 4 - 200)
    return data[:start] + bytes(200) + data[start + 200 :]


def byte_flipped(data: bytes, rng: Random) -> bytes:
    """Bad memory: all bits of one byte in the middle half are flipped."""
    place = rng.randrange(len(data) // 4, len(data) * 3 // 4)
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def bytes_inserted(data: bytes, rng: Random) -> bytes:
    """A transfer in text mode: bytes were added."""
    place = rng.randrange(len(data) // 4, len(data) * 3 // 4)
    return data[:place] + rng.randbytes(3) + data[place:]


def bytes_removed(data: bytes, rng: Random) -> bytes:
    """A transfer in text mode: bytes were removed."""
    place = rng.randrange(len(data) // 4, len(data) * 3 // 4)
    return data[:place] + data[place + 7 :]


def block_overwritten(data: bytes, rng: Random) -> bytes:
    """4 KiB of noise in the middle half."""
    start = rng.randrange(len(data) // 4, len(data) * 3 // 4 - 4096)
    return data[:start] + rng.randbytes(4096) + data[start + 4096 :]


def json_header_cut(data: bytes, rng: Random) -> bytes:
    """A .safetensors file that ends within its JSON header."""
    (length,) = struct.unpack_from('<Q', data)
    return data[: 8 + rng.randrange(1, length)]


def json_header_overwritten(data: bytes, rng: Random) -> bytes:
    """A .safetensors file whose header has the right length but is not JSON."""
    (length,) = struct.unpack_from('<Q', data)
    return data[:8] + b'x' * length + data[8 + length :]


def _with_size(data: bytes, width: int, height: int) -> bytes:
    header = data[12:16] + struct.pack('>II', width, height) + data[24:29]
    return data[:12] + header + struct.pack('>I', zlib.crc32(header)) + data[33:]


def size_of_zero(data: bytes, rng: Random) -> bytes:
    """A PNG whose header has 0 columns and a valid checksum."""
    return _with_size(data, 0, 48)


def size_of_a_bomb(data: bytes, rng: Random) -> bytes:
    """A PNG whose header asks for 30 GB and has a valid checksum."""
    return _with_size(data, 100_000, 100_000)


def size_doubled(data: bytes, rng: Random) -> bytes:
    """A PNG whose header has too many rows and a valid checksum."""
    return _with_size(data, *struct.unpack_from('>I', data, 16), 96)


def _saved(data: bytes, kind: str, mode: str = 'RGB') -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert(mode).save(file, kind)
    return file.getvalue()


def grey_image(data: bytes, rng: Random) -> bytes:
    """A grey PNG, which is read as RGB."""
    return _saved(data, 'PNG', 'L')


def image_with_alpha(data: bytes, rng: Random) -> bytes:
    """A PNG with an alpha channel, which is dropped."""
    return _saved(data, 'PNG', 'RGBA')


def palette_image(data: bytes, rng: Random) -> bytes:
    """A PNG with a palette, which is read as RGB."""
    return _saved(data, 'PNG', 'P')


def cmyk_image(data: bytes, rng: Random) -> bytes:
    """A CMYK JPEG with the name of a PNG; the content decides, not the name."""
    return _saved(data, 'JPEG', 'CMYK')


def deep_image(data: bytes, rng: Random) -> bytes:
    """A 16-bit PNG, which is reduced to 8 bits."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode('.png', image.astype(np.uint16) * 257)[1].tobytes()


def _named(*damages: Damage) -> dict[str, Damage]:
    return {damage.__name__: damage for damage in damages}


#: these destroy a file of any binary format
ANY_FILE = _named(
    empty, cut_early, cut_anywhere, header_overwritten, all_zeroed, text_instead, noise_instead, zip_instead
)
#: these destroy a PNG and are found without decoding it
ENDS_OF_IMAGES = ANY_FILE | _named(cut_late, size_of_zero, size_of_a_bomb, size_doubled)
#: these destroy a PNG, as its checksums show, and are found only when it is decoded
INSIDE_OF_PNG = _named(block_zeroed, byte_flipped, bytes_inserted, bytes_removed)
#: these destroy a checkpoint, whose records are separate
INSIDE_OF_CHECKPOINT = _named(block_overwritten, bytes_inserted, bytes_removed)
#: these destroy a .safetensors file with a checksum, which ours have
OF_SAFETENSORS = _named(json_header_cut, json_header_overwritten, byte_flipped, text_instead)
#: rare but readable images
UNUSUAL_IMAGES = _named(grey_image, image_with_alpha, palette_image, cmyk_image, deep_image)
