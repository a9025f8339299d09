"""Optical flow between frames, and alignment of a window's frames by it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dblr_plugin.data.clips import ClipPair
from dblr_plugin.errors import DBLRError

__all__ = ['MIN_SIDE', 'align', 'optical_flow', 'too_small_for_flow', 'warped']

MIN_SIDE = 32  # pixels; below this, OpenCV's DIS flow returns NaN or crashes


def align(frames: Sequence[np.ndarray], reference: int, consistent: bool = False) -> list[np.ndarray]:
    """Warps the frames of a window onto one of them.

    Flow is computed from brightness, the mean of the channels, so that RGB and BGR give the same result. Pixels outside
    the frame are replicated from its border, and occluded pixels stay wrong, which the network has to cope with. With
    ``consistent``, such pixels are taken from the reference instead, as in "Hand-held Video Deblurring via Efficient
    Fourier Aggregation" (Delbracio and Sapiro, arXiv 1509.05251), with the parameters of its public implementation
    (Anger and Meinhardt-Llopis, IPOL 2017).

    Args:
        frames: ``(h, w, c)`` of one size and type: uint8, uint16, or float32 in [0, 1].
        reference: Index of the frame that the others are aligned to.
        consistent: Whether pixels with unreliable flow are taken from the reference.

    Returns:
        Frames of the same type; the reference and any repetitions of it are unchanged.

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
    return [frame if frame is target else _aligned(frame, target, grey, consistent) for frame in frames]


def _aligned(frame: np.ndarray, target: np.ndarray, grey: np.ndarray, consistent: bool) -> np.ndarray:
    other = _brightness(frame)
    there = optical_flow(grey, other)
    # bilinear interpolation would blur, and neighbours help only where they are sharp
    moved = warped(frame, there, cv2.INTER_CUBIC)
    if not consistent:
        return moved
    reliable = _reliability(there, optical_flow(other, grey))[..., None]
    blended = target + reliable * (moved.astype(np.float32) - target)
    return (blended if frame.dtype == np.float32 else np.rint(blended)).astype(frame.dtype)


def _reliability(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Returns a flow's reliability, ``(h, w)`` in [0, 1]: it ends inside the frame and flows back to within a pixel."""
    # unreliable areas are grown by 5 pixels and fade out beyond that
    height, width = there.shape[:2]
    closing = there + warped(back, there, cv2.INTER_LINEAR)
    closes = (np.linalg.norm(closing, axis=2) < 1).astype(np.float32)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    reliable = cv2.GaussianBlur(cv2.erode(closes, disk), (0, 0), 5)
    rows, columns = np.mgrid[:height, :width] + there.transpose(2, 0, 1)[::-1]
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    return reliable * inside


def optical_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes where each pixel of a frame has moved to in another one (DIS, Kroeger et al., ECCV 2016).

    Both are uint8 grey ``(h, w)``, at least ``MIN_SIDE`` in both dimensions; the result is float32 ``(h, w, 2)``, in
    pixels to the right and down.
    """
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return method.calc(first, second, None)  # type: ignore[call-overload]  # the stub lacks None, which OpenCV accepts


def warped(frame: np.ndarray, flow: np.ndarray, interpolation: int) -> np.ndarray:
    """Warps a frame by a flow ``(h, w, 2)``: pixel ``(x, y)`` is sampled at ``(x, y) + flow``."""
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
    """Returns the mean of a frame's channels as uint8 ``(h, w)``."""
    to_eight_bits = {np.dtype(np.uint8): 1, np.dtype(np.uint16): 1 / 257, np.dtype(np.float32): 255}[frame.dtype]
    mean = cv2.transform(frame, np.full((1, frame.shape[2]), 1 / frame.shape[2]))
    return cv2.convertScaleAbs(mean, alpha=to_eight_bits)
