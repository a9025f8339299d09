"""Interpolates frames by optical flow, so that the average of a few frames is as smooth as that of many."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from dblr_plugin.data.flow import MIN_SIDE, optical_flow, warped
from dblr_plugin.data.linear_light import to_linear_light
from dblr_plugin.errors import DBLRError

__all__ = ['in_betweens']


def in_betweens(first: np.ndarray, second: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """Yields ``count`` frames evenly spread between two frames, in linear light.

    Each is a blend of both frames, warped towards its time along the flow in either direction, the nearer one weighing
    more. The flow is taken at the target's pixels instead of the source's, which is exact where it is smooth.

    Args:
        first: uint8 RGB frame (h, w, 3).
        second: The next one, of the same size.
        count: How many, 0 or more.

    Yields:
        float32 (h, w, 3) in [0, 1].

    Raises:
        DBLRError: The frames are too small for optical flow.
    """
    if count == 0:
        return
    if min(first.shape[:2]) < MIN_SIDE:
        raise DBLRError(f'frames of {first.shape[1]}x{first.shape[0]} are too small for in-betweens; leave them out')
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    forward, backward = optical_flow(*greys), optical_flow(*greys[::-1])
    lights = to_linear_light(first), to_linear_light(second)
    for number in range(1, count + 1):
        time = np.float32(number / (count + 1))
        yield (1 - time) * _moved(lights[0], time * forward) + time * _moved(lights[1], (1 - time) * backward)


def _moved(light: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Moves the pixels of a float32 frame (h, w, 3) along a flow (h, w, 2), x first."""
    return warped(light, -flow, cv2.INTER_LINEAR)
