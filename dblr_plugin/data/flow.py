"""Optical flow between frames, and windows whose frames are aligned by it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dblr_plugin.data.clips import ClipPair
from dblr_plugin.errors import DBLRError

__all__ = ['MIN_SIDE', 'align', 'optical_flow', 'too_small_for_flow', 'warped']

MIN_SIDE = 32  # pixels; on less, OpenCV's DIS flow gives NaN or crashes


def align(frames: Sequence[np.ndarray], reference: int) -> list[np.ndarray]:
    """Warps the frames of a window onto one of them.

    Flow goes by brightness, the mean of the channels, so that RGB and BGR give the same. What left the picture is
    repeated from its border, and what is hidden in a frame stays wrong: that is for the network to notice.

    Args:
        frames: ``(h, w, c)`` of one size and type: uint8, uint16, or float32 in [0, 1].
        reference: Which of them the others are aligned to.

    Returns:
        Frames of the same type; the reference, also where it is repeated, is as it was.

    Raises:
        DBLRError: The frames are too small for optical flow.
    """
    target = frames[reference]
    if min(target.shape[:2]) < MIN_SIDE:
        raise DBLRError(
            f'frames of {target.shape[1]}x{target.shape[0]} (w x h) are too small for optical flow, which needs '
            f'{MIN_SIDE}x{MIN_SIDE}; use larger ones'
        )
    grey = _brightness(target)
    return [
        # bilinear interpolation would blur, and neighbours are wanted for where they are sharp
        frame if frame is target else warped(frame, optical_flow(grey, _brightness(frame)), cv2.INTER_CUBIC)
        for frame in frames
    ]


def optical_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where each pixel of a frame has gone in another one (DIS, Kroeger et al., ECCV 2016).

    Args:
        first: uint8 grey frame ``(h, w)``, at least ``MIN_SIDE`` both ways.
        second: Another one.

    Returns:
        float32 ``(h, w, 2)``, pixels to the right and down.
    """
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return method.calc(first, second, None)  # type: ignore[call-overload]  # the stub has no None, OpenCV has


def warped(frame: np.ndarray, flow: np.ndarray, interpolation: int) -> np.ndarray:
    """Takes each pixel ``(x, y)`` of a frame from where the flow ``(h, w, 2)`` points: ``(x, y) + flow``."""
    height, width = frame.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    taken = cv2.remap(
        frame, columns + flow[..., 0], rows + flow[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE
    )
    return taken.reshape(frame.shape)  # OpenCV drops a single channel


def too_small_for_flow(clips: Sequence[ClipPair]) -> list[str]:
    """Returns a message for each clip that cannot be aligned."""
    return [
        f"clip '{clip.name}' is {clip.size[1]}x{clip.size[0]} (w x h), and optical flow needs {MIN_SIDE}x{MIN_SIDE}; "
        'remove the clip or set flow: false'
        for clip in clips
        if min(clip.size) < MIN_SIDE
    ]


def _brightness(frame: np.ndarray) -> np.ndarray:
    """uint8 ``(h, w)``."""
    to_eight_bits = {np.dtype(np.uint8): 1, np.dtype(np.uint16): 1 / 257, np.dtype(np.float32): 255}[frame.dtype]
    mean = cv2.transform(frame, np.full((1, frame.shape[2]), 1 / frame.shape[2]))
    return cv2.convertScaleAbs(mean, alpha=to_eight_bits)
