"""Simulates a hand-held camera by smooth random motion in the image plane."""

from __future__ import annotations

import math

import cv2
import numpy as np

__all__ = ['HandHeld', 'moved']

WAVES = 4
# cycles in one exposure: slow drift bends the path little, the fastest tremor turns round within it
MIN_RATE, MAX_RATE = 0.1, 0.8


class HandHeld:
    """A smooth random path of the camera: two shifts and a small rotation, each a sum of slow sine waves.

    Args:
        amplitude: Root mean square of either shift, in pixels; the rotation moves the middle of a frame's side by
            half of that.
        exposure: Source frames in one exposure, which sets the pace.
        size: (height, width) of a frame.
        seed: What the path is drawn from.
    """

    def __init__(self, amplitude: float, exposure: int, size: tuple[int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._rates = 2 * math.pi / exposure * rng.uniform(MIN_RATE, MAX_RATE, (WAVES, 3))
        self._phases = rng.uniform(0, 2 * math.pi, (WAVES, 3))
        angle = amplitude / max(size)  # half the amplitude, at half a side from the centre
        self._scale = math.sqrt(2 / WAVES) * np.array([amplitude, amplitude, angle])

    def pose(self, time: float) -> np.ndarray:
        """Returns (x, y, angle) in pixels, pixels and radians, at a time in source frames."""
        return self._scale * np.sin(self._rates * time + self._phases).sum(0)


def moved(light: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Returns a frame as the moved camera sees it; what lies beyond its border is mirrored.

    Args:
        light: float32 (h, w, 3).
        pose: (x, y, angle): shift in pixels, and rotation around the centre in radians. All zero changes nothing.
    """
    height, width = light.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), math.degrees(pose[2]), 1.0)
    matrix[:, 2] += pose[:2]
    return cv2.warpAffine(light, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
