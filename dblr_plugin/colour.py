"""Y as BasicSR defines it (BT.601, 16 to 235), for tensors and for pixels; and linear light (IEC 61966-2-1, sRGB).

A sensor adds up light, while the values in an image or video file are encoded for display. Exposures are therefore
averaged between :func:`to_linear_light` and :func:`from_linear_light`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from dblr_plugin.errors import DBLRError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    'from_linear_light', 'linear_to_srgb', 'luma_of_bgr', 'luma_of_jpeg', 'replace_y', 'rgb_to_y', 'srgb_to_linear',
    'to_linear_light', 'to_network_colour',
]  # fmt: skip

# basicsr.utils.color_util.rgb2ycbcr_pt: rows of the matrix in units of 1/255, offset 16
_R, _G, _B, _OFFSET = (v / 255 for v in (65.481, 128.553, 24.966, 16.0))
# the same for BGR from 0 to 255, for OpenCV: ten times as fast as the numpy product of
# basicsr.utils.color_util.bgr2ycbcr
_BGR_TO_Y = np.array([[_B, _G, _R, _OFFSET * 255]], np.float32) / np.float32(255)


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Returns Y of RGB images, ``(..., 3, h, w)`` to ``(..., 1, h, w)``."""
    red, green, blue = rgb.split(1, dim=-3)
    return _R * red + _G * green + _B * blue + _OFFSET


def replace_y(rgb: Tensor, y: Tensor) -> Tensor:
    """Replaces the Y of images and leaves their Cb and Cr unchanged.

    Adding equal amounts to R, G and B changes only Y (the rows of Cb and Cr sum to zero, that of Y to 219/255), so no
    inverse matrix is needed, and an unchanged Y returns the image bit for bit.

    Args:
        rgb: ``(..., 3, h, w)``.
        y: ``(..., 1, h, w)``.

    Returns:
        ``(..., 3, h, w)``; it may leave [0, 1] if the new Y and the old Cb and Cr are not an RGB colour.
    """
    return rgb + (y - rgb_to_y(rgb)) / (_R + _G + _B)


def to_network_colour(frames: Tensor, num_in_ch: int) -> Tensor:
    """Converts images to the network's input: Y for one channel, RGB for three.

    Args:
        frames: RGB ``(..., 3, h, w)``, or Y ``(..., 1, h, w)`` from a data set with ``y_only: true``.
        num_in_ch: The network's number of input channels.

    Raises:
        DBLRError: If the network needs RGB and the images are Y.
    """
    if frames.shape[-3] == 1:
        if num_in_ch != 1:
            raise DBLRError(
                f'the training set gives only the Y channel (y_only: true), but network_g takes {num_in_ch} channels; '
                'remove y_only, or set num_in_ch: 1'
            )
        return frames
    return rgb_to_y(frames) if num_in_ch == 1 else frames


def luma_of_bgr(bgr: np.ndarray) -> np.ndarray:
    """Returns Y of BGR pixels, exact to float32 rounding.

    Args:
        bgr: uint8 (h, w, 3).

    Returns:
        float32 (h, w, 1) in [16/255, 235/255].
    """
    return cv2.transform(bgr.astype(np.float32), _BGR_TO_Y)[..., None]


def luma_of_jpeg(grey: np.ndarray) -> np.ndarray:
    """Returns Y from a JPEG's own Y channel, which holds the same brightness in the full range 0 to 255, rounded.

    It is what the encoder wrote, before colour was converted, clipped and rounded: 60 to 64 dB (PSNR) from the Y of the
    decoded RGB. The error is far below the noise of training, but do not report scores computed from it.

    Args:
        grey: uint8 (h, w), a JPEG decoded to grey.

    Returns:
        float32 (h, w, 1) in [16/255, 235/255].
    """
    return (grey.astype(np.float32) * np.float32(219 / 255**2) + np.float32(16 / 255))[..., None]


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Decodes sRGB values in [0, 1] to linear light in [0, 1]; float64, any shape."""
    value = np.asarray(value, np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Encodes linear light in [0, 1] as sRGB values in [0, 1]; float64, any shape. Inverts :func:`srgb_to_linear`."""
    light = np.asarray(light, np.float64)
    return np.where(light <= 0.04045 / 12.92, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


# An 8-bit frame has only 256 values: looking them up is much faster than the power function. float32 keeps them well
# apart: the closest two differ by 3e-4.
_LIGHT = srgb_to_linear(np.arange(256) / 255).astype(np.float32)


def to_linear_light(frame: np.ndarray) -> np.ndarray:
    """Decodes a uint8 frame of any shape to linear light, float32 in [0, 1]."""
    return _LIGHT[frame]


def from_linear_light(light: np.ndarray) -> np.ndarray:
    """Encodes linear light in [0, 1] as a uint8 frame of the same shape, rounded to the nearest value."""
    return np.rint(linear_to_srgb(light) * 255).astype(np.uint8)
