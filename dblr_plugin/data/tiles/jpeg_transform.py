"""Lossless crops of a JPEG by libjpeg-turbo's own transform: coefficients are copied, nothing is decoded to pixels.

The wheel ``turbojpeg`` brings libjpeg-turbo 3 along. Its Python function reads the whole file for one rectangle, which
would take seconds for the 900 cells of a frame; the C function below it, ``tj3Transform``, cuts all in one pass.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

from dblr_plugin.errors import DBLRError
from dblr_plugin.extras import load_fast

__all__ = ['crop_losslessly']

# turbojpeg.h of libjpeg-turbo 3
_TJINIT_TRANSFORM = 2
_TJXOP_NONE = 0
_TJXOPT_CROP = 1 << 2
_TJXOPT_COPYNONE = 1 << 6


class _Transform(ctypes.Structure):
    """``tjtransform``: a rectangle (x, y, w, h), what to do with it, and the pointers of a filter, unused."""

    _fields_ = (
        ('region', ctypes.c_int * 4),
        ('op', ctypes.c_int),
        ('options', ctypes.c_int),
        ('data', ctypes.c_void_p),
        ('custom_filter', ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    """Loads the TurboJPEG API, found through the extension module that is linked to it."""
    try:
        library = ctypes.CDLL(load_fast('turbojpeg').__file__)
        functions = library.tj3Init, library.tj3Transform, library.tj3GetErrorStr, library.tj3Free, library.tj3Destroy
    except (OSError, AttributeError) as error:
        raise DBLRError(
            f"turbojpeg's library cannot be used here ({error}); pip install --force-reinstall turbojpeg"
        ) from error
    init, transform, error_text, free, destroy = functions
    init.restype = ctypes.c_void_p
    transform.argtypes = (
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_size_t),
        ctypes.POINTER(_Transform),
    )
    error_text.argtypes, error_text.restype = (ctypes.c_void_p,), ctypes.c_char_p
    free.argtypes = destroy.argtypes = (ctypes.c_void_p,)
    return library


def crop_losslessly(data: bytes, regions: Sequence[tuple[int, int, int, int]]) -> list[bytes]:
    """Cuts rectangles out of a JPEG; the lock of the interpreter is released meanwhile.

    Args:
        data: The JPEG file.
        regions: (x, y, width, height) of each, x and y multiples of the JPEG's unit of compression.

    Returns:
        A JPEG file for each region, baseline, with the standard Huffman tables and without metadata.

    Raises:
        ValueError: The library refuses, as the file is damaged or of a kind that it does not know.
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
