"""Brightness for training on it alone: Y of BT.601 as BasicSR defines it, from decoded pixels."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ['luma_of_bgr', 'luma_of_jpeg']


# basicsr.utils.color_util.bgr2ycbcr, for values from 0 to 255; its numpy product is ten times as slow
_BGR_TO_Y = np.array([[24.966 / 255, 128.553 / 255, 65.481 / 255, 16.0]], np.float32) / np.float32(255)


def luma_of_bgr(bgr: np.ndarray) -> np.ndarray:
    """Y of BGR pixels, exact to the rounding of float32.

    Args:
        bgr: uint8 (h, w, 3).

    Returns:
        float32 (h, w, 1) in [16/255, 235/255].
    """
    return cv2.transform(bgr.astype(np.float32), _BGR_TO_Y)[..., None]


def luma_of_jpeg(grey: np.ndarray) -> np.ndarray:
    """Y of a JPEG's own Y channel, which holds the same brightness in the full range 0 to 255, rounded.

    It is what the encoder wrote, before colour was converted, clipped and rounded: 60 to 64 dB (PSNR) from the Y of
    the decoded RGB. Far below the noise of training, and not for figures that are reported.

    Args:
        grey: uint8 (h, w), a JPEG decoded to grey.

    Returns:
        float32 (h, w, 1) in [16/255, 235/255].
    """
    return (grey.astype(np.float32) * np.float32(219 / 255**2) + np.float32(16 / 255))[..., None]
