"""Temporal consistency: do consecutive restored frames differ by more than motion?

The warping error of Lai et al., Learning Blind Video Temporal Consistency (ECCV 2018). Of two consecutive frames the
second is warped to the first along the optical flow; the error is the squared difference, with values in [0, 1], in
the mean over all pixels that both frames show and over their channels. A video's figure is the mean over its pairs of
frames: 0 for perfect consistency, 1 at most. Independent noise of variance v in each frame adds 2 v where motion is by
whole pixels, down to 1.25 v where warping interpolates. A blurry video is consistent: read it beside PSNR.

Flow and occlusions come from the ground truth, so that all methods are judged by the same pixels and none by the flow
of its own faults. As in the authors' code, a pixel is left out where the flow there and back does not close, and at
edges of motion (Ruder et al., GCPR 2016); here also where the flow leads out of the frame. What differs is the flow:
OpenCV's DIS (Kroeger et al., ECCV 2016) for a trained network's. So figures compare with each other, and with the
ground truth's own, which is what flow, interpolation and the footage's noise leave; they do not compare with published
ones.
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
    """The warping error of a restored frame and the one before it.

    Args:
        img: ``(h, w, 3)`` or grey ``(h, w)`` in [0, 255], float or uint8.
        img2: Its ground truth: the same shape, whole numbers.
        img_before, img2_before: The same of the frame before.
        crop_border: Pixels left out at each edge.

    Returns:
        From 0 to 1; None where no pixel is visible in both frames, as after a cut.

    Raises:
        DBLRError: The frames are too small for optical flow, or of several sizes.
    """
    images = [img, img2, img_before, img2_before]
    if len({image.shape for image in images}) > 1:
        shapes = ', '.join(f'{f.shape[1]}x{f.shape[0]}' for f in images)
        raise DBLRError(f'warping error: frames of one clip must have one size, and are {shapes} (w x h)')
    if crop_border:
        images = [image[crop_border:-crop_border, crop_border:-crop_border] for image in images]
    img, img2, img_before, img2_before = images
    flow, visible = flow_and_visible(img2_before, img2)
    return warped_difference(img_before, img, flow, visible) if visible.any() else None


def flow_and_visible(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optical flow, and at which of the first frame's pixels it can be relied on.

    Args:
        first, second: BGR ``(h, w, 3)`` or grey ``(h, w)`` in [0, 255], whole numbers.

    Returns:
        The flow from the first to the second, float32 ``(h, w, 2)`` in pixels, x first; and bool ``(h, w)``.

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
    """The mean squared difference of a frame and the next one warped to it.

    Args:
        first, second: ``(h, w, c)`` or ``(h, w)`` in [0, 255].
        flow, visible: As :func:`flow_and_visible` returns them; at least one pixel is visible.

    Returns:
        From 0 to 1.
    """
    first, second = (frame.astype(np.float32) / 255 for frame in (first, second))
    return float(np.square(first - warped(second, flow, cv2.INTER_LINEAR))[visible].mean(dtype=np.float64))


def _squared(flow: np.ndarray) -> np.ndarray:
    """Squared lengths ``(h, w)``."""
    return np.square(flow).sum(axis=2)
