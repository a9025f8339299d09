"""Converts between display values and linear light: the sRGB transfer function of IEC 61966-2-1.

A sensor adds up light, while the values in an image or video file are encoded for display. Exposures are averaged
after :func:`to_linear_light` and before :func:`from_linear_light`.
"""

from __future__ import annotations

import numpy as np

__all__ = ['from_linear_light', 'linear_to_srgb', 'srgb_to_linear', 'to_linear_light']


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Decodes sRGB values in [0, 1] to linear light in [0, 1]; float64, any shape."""
    value = np.asarray(value, np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Encodes linear light in [0, 1] as sRGB values in [0, 1]; float64, any shape. Inverts :func:`srgb_to_linear`."""
    light = np.asarray(light, np.float64)
    return np.where(light <= 0.04045 / 12.92, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


# An 8-bit frame holds 256 different values: looking them up is much faster than the power function. float32 keeps
# them apart by far: the closest two differ by 3e-4.
_LIGHT = srgb_to_linear(np.arange(256) / 255).astype(np.float32)


def to_linear_light(frame: np.ndarray) -> np.ndarray:
    """Decodes a uint8 frame of any shape to linear light, float32 in [0, 1]."""
    return _LIGHT[frame]


def from_linear_light(light: np.ndarray) -> np.ndarray:
    """Encodes linear light in [0, 1] as a uint8 frame of the same shape, rounded to the nearest value."""
    return np.rint(linear_to_srgb(light) * 255).astype(np.uint8)
