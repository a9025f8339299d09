"""Colour: the Y of BT.601 as BasicSR defines it, and its exact inverse.

Pictures are RGB in [0, 1]; Y lies in [16/255, 235/255].
"""

from __future__ import annotations

from torch import Tensor

__all__ = ['replace_y', 'rgb_to_y']

# basicsr.utils.color_util.rgb2ycbcr_pt: rows of the matrix in units of 1/255, offset 16
_R, _G, _B, _OFFSET = (v / 255 for v in (65.481, 128.553, 24.966, 16.0))


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Y of RGB pictures, ``(..., 3, h, w)`` to ``(..., 1, h, w)``."""
    red, green, blue = rgb.split(1, dim=-3)
    return _R * red + _G * green + _B * blue + _OFFSET


def replace_y(rgb: Tensor, y: Tensor) -> Tensor:
    """Gives pictures a new Y and leaves their Cb and Cr as they are.

    Equal grey added to R, G and B changes only Y (the rows of Cb and Cr sum to zero, that of Y to 219/255), so no
    inverse matrix is needed, and an unchanged Y returns the picture unchanged to the bit.

    Args:
        rgb: ``(..., 3, h, w)``.
        y: ``(..., 1, h, w)``.

    Returns:
        ``(..., 3, h, w)``; it can leave [0, 1] where the new Y and the old Cb and Cr are no RGB colour.
    """
    return rgb + (y - rgb_to_y(rgb)) / (_R + _G + _B)
