"""Puts blurry and restored frames side by side or one above the other."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

__all__ = ['Layout', 'compared']

Layout = Literal['beside', 'stacked']

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE_SHARE = 24  # a line of text is this part of a picture's height, and no smaller than can be read
_LEAST_LINE = 10  # pixels
_LABELS = ('input', 'restored')


def compared(blurry: np.ndarray, restored: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns both pictures in one, each whole and with a label in its upper left corner.

    Args:
        blurry: RGB ``(h, w, 3)``, uint8 or uint16.
        restored: The same.
        layout: ``beside`` gives ``(h, 2 w, 3)``, ``stacked`` gives ``(2 h, w, 3)``.
    """
    pictures = [_labelled(picture, text) for picture, text in zip((blurry, restored), _LABELS, strict=True)]
    return np.concatenate(pictures, axis=1 if layout == 'beside' else 0)


def _labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """Writes white text on black into a corner; a picture that is too small for it stays as it is."""
    line = max(_LEAST_LINE, picture.shape[0] // _LINE_SHARE)
    scale = cv2.getFontScaleFromHeight(_FONT, line)
    thickness = max(1, line // 12)
    (width, height), base = cv2.getTextSize(text, _FONT, scale, thickness)
    label = np.zeros((height + 2 * base, width + 2 * base, 3), np.uint8)
    cv2.putText(label, text, (base, height + base), _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    if label.shape[0] > picture.shape[0] // 2 or label.shape[1] > picture.shape[1]:
        return picture
    marked = picture.copy()
    factor = np.iinfo(picture.dtype).max // 255
    marked[: label.shape[0], : label.shape[1]] = label.astype(picture.dtype) * factor
    return marked
