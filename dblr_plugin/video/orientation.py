"""Rotates frames upright, as the display matrix of a video says."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from av import VideoFrame

__all__ = ['Orientation']

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orientation:
    """A transposition, then flips: together the eight ways to lay a picture on its sides.

    Attributes:
        transposed: Whether rows become columns.
        mirrored: Whether left and right are then exchanged.
        upturned: Whether top and bottom are then exchanged.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @classmethod
    def of(cls, frame: VideoFrame, where: str) -> Orientation:
        """Returns how a decoded frame is to be turned.

        The matrix maps a pixel (x, y) to (a x + c y, b x + d y). Other angles than quarter turns are left alone.
        """
        data = frame.side_data.get('DISPLAYMATRIX')
        if data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
        if not (b or c):
            return cls(mirrored=a < 0, flipped=d < 0)
        if not (a or d):
            return cls(transposed=True, mirrored=c < 0, flipped=b < 0)
        _log.warning('%s is to be shown at an angle that is no quarter turn; its pictures stay as they are', where)
        return cls()

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels (h, w, 3) turned upright: (w, h, 3) where transposed."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        if self.flipped:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)
