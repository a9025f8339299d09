"""Reads a folder of sharp pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.data.images import decode, is_image, natural
from dblr_plugin.data.motion.pictures import SharpPictures
from dblr_plugin.errors import DBLRError

__all__ = ['read_pictures']

_LONGEST = 2560  # pixels of a picture's longer side; larger ones are scaled down


def read_pictures(folder: str | Path, grey: bool, least: int) -> SharpPictures:
    """Decodes the pictures of a folder and its subfolders, which stay in memory; those that are too small are left out.

    Args:
        folder: Holds PNG, JPEG, WebP, TIFF or BMP files.
        grey: Keep brightness alone.
        least: Pixels that the shorter side needs.

    Raises:
        DBLRError: There is no such folder, no picture of that size, or one is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DBLRError(f'{folder}: no such folder of pictures')
    files = sorted((f for f in folder.rglob('*') if is_image(f.name) and f.is_file()), key=lambda f: natural(str(f)))
    pictures = {str(file.relative_to(folder)): _read(file, grey) for file in files}
    large = {name: picture for name, picture in pictures.items() if min(picture.shape[:2]) >= least}
    if not large:
        raise DBLRError(
            f'{folder}: none of its {len(files)} pictures has {least} pixels on its shorter side; add larger ones'
        )
    return SharpPictures(list(large), list(large.values()))


def _read(path: Path, grey: bool) -> np.ndarray:
    """uint8 (h, w, 1) or (h, w, 3), RGB."""
    picture = decode(path.read_bytes(), str(path))
    factor = _LONGEST / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if grey:
        return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None]
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
