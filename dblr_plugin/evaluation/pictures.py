"""Writes restored frames and comparison images as PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.files import atomic_write, make_folder

__all__ = ['write_picture']


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes uint8 BGR ``(h, w, 3)`` as the PNG file ``path``, whole or not at all; makes its folder.

    Raises:
        DBLRError: If it cannot be written.
    """
    make_folder(path.parent)
    with atomic_write(path) as partial:
        partial.write_bytes(cv2.imencode('.png', image)[1].tobytes())
