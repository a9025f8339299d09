"""Temporal consistency: do consecutive restored frames differ by more than motion?

The warping error of Lai et al., Learning Blind Video Temporal Consistency (ECCV 2018). The second of two consecutive
frames is warped to the first along the optical flow; the error is the mean squared difference, with values in [0, 1],
over all pixels visible in both frames and their channels. A video's score is the mean over its frame pairs: 0 for
perfect consistency, 1 at most. Independent noise of variance v in each frame adds 2 v for whole-pixel motion, and down
to 1.25 v where warping interpolates. A blurry video is consistent too: read the score together with PSNR.

Flow and occlusions come from the ground truth, so that all methods are scored on the same pixels and none by the flow
of its own artefacts. As in the authors' code, pixels are excluded where forward and backward flow are inconsistent, and
at motion boundaries (Ruder et al., GCPR 2016); here also where the flow leaves the frame. The flow itself differs:
OpenCV's DIS (Kroeger et al., ECCV 2016) instead of a trained network's. Scores are therefore comparable with each
other and with the ground truth's own score (caused by errors of the flow, interpolation and noise), but not with
published ones.
"""

from __future__ import annotations

import cv2
import numpy as np

from dblr_plugin.data.flow import MIN_SIDE, optical_flow, warped
from dblr_plugin.errors import DBLRError

__all__ = ['flow_and_visible', 'warped_difference', 'warping_error']


def warping_error(
    img: np.ndarray, img2: np.ndarray, img_before: np.ndarray, img2_before: np.ndarray, crop_border: int = 0
) -> float | None:
    """Computes the warping error between a restored frame and the previous one.

    Args:
        img: ``(h, w, 3)`` or grey ``(h, w)`` in [0, 255], float or uint8.
        img2: Its ground truth, of the same shape; integers.
        img_before, img2_before: The same for the previous frame.
        crop_border: Pixels ignored at each edge.

    Returns:
        From 0 to 1; None if no pixel is visible in both frames, as after a cut.

    Raises:
        DBLRError: The frames are too small for optical flow.
    """
    images = [img, img2, img_before, img2_before]
    if crop_border:
        images = [image[crop_border:-crop_border, crop_border:-crop_border] for image in images]
    img, img2, img_before, img2_before = images
    flow, visible = flow_and_visible(img2_before, img2)
    return warped_difference(img_before, img, flow, visible) if visible.any() else None


def flow_and_visible(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes optical flow and a mask of the first frame's pixels where it is reliable.

    Args:
        first, second: BGR ``(h, w, 3)`` or grey ``(h, w)`` in [0, 255], integers.

    Returns:
        The flow from the first to the second, float32 ``(h, w, 2)`` in pixels, x first; and the mask, bool ``(h, w)``.

    Raises:
        DBLRError: The frames are too small.
    """
    height, width = first.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise DBLRError(f'frames of {width}x{height} are too small for optical flow; leave the warping error out')
    whole = (frame.astype(np.uint8) for frame in (first, second))
    greys = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if frame.ndim == 3 else frame for frame in whole]
    there, back = optical_flow(*greys), optical_flow(*greys[::-1])
    rows, columns = np.mgrid[:height, :width] + there.transpose(2, 0, 1)[::-1]
    inside = (abs(columns - (width - 1) / 2) <= width / 2) & (abs(rows - (height - 1) / 2) <= height / 2)
    back = warped(back, there, cv2.INTER_LINEAR)
    closes = _squared(there + back) <= 0.01 * (_squared(there) + _squared(back)) + 0.5
    steps = [np.diff(there, axis=axis, append=there.take([-1], axis)) for axis in (0, 1)]
    smooth = sum(map(_squared, steps)) <= 0.01 * _squared(there) + 0.002
    return there, inside & closes & smooth


def warped_difference(first: np.ndarray, second: np.ndarray, flow: np.ndarray, visible: np.ndarray) -> float:
    """Computes the mean squared difference between a frame and the next one warped to it.

    Args:
        first, second: ``(h, w, c)`` or ``(h, w)`` in [0, 255].
        flow, visible: As returned by :func:`flow_and_visible`; at least one pixel must be visible.

    Returns:
        From 0 to 1.
    """
    first, second = (frame.astype(np.float32) / 255 for frame in (first, second))
    return float(np.square(first - warped(second, flow, cv2.INTER_LINEAR))[visible].mean(dtype=np.float64))


def _squared(flow: np.ndarray) -> np.ndarray:
    """Squared lengths ``(h, w)``."""
    return np.square(flow).sum(axis=2)
