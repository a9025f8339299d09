"""BasicSR's PSNR and SSIM, several times as fast.

The figures are those of ``basicsr/metrics/psnr_ssim.py``: PSNR to rounding, SSIM to 1e-7, or 3e-6 where black meets
white; tests hold them to it. ``dblr bench metrics`` measures what is gained.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

__all__ = ['SSIM_WINDOW', 'psnr', 'ssim']

SSIM_WINDOW = 11  # pixels
_PEAK = 255.0
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
_GAUSSIAN = cv2.getGaussianKernel(SSIM_WINDOW, 1.5, cv2.CV_32F)
# rows of a strip's result: its intermediate pictures, in float32, stay in a core's cache
_STRIP = 32
# Y (BT.601, 16 to 235) of BGR in [0, 255], as basicsr/utils/matlab_functions.py has it
_Y = np.array([[24.966 / 255, 128.553 / 255, 65.481 / 255, 16]], dtype=np.float32)


def psnr(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """Peak signal-to-noise ratio, as ``calculate_psnr`` of BasicSR.

    Args:
        img: BGR ``(h, w, 3)`` or grey ``(h, w)`` in [0, 255], any type.
        img2: The same shape.
        crop_border: Pixels left out at each edge.
        test_y_channel: Whether to compare Y (BT.601, 16 to 235) instead.

    Returns:
        dB; infinite for equal images.
    """
    img, img2 = _compared(img, img2, crop_border, test_y_channel)
    if img.dtype != img2.dtype:  # OpenCV takes one type
        img, img2 = img.astype(np.float64), img2.astype(np.float64)
    error = cv2.norm(img, img2, cv2.NORM_L2SQR) / img.size
    return 10 * math.log10(_PEAK**2 / error) if error else math.inf


def ssim(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """Structural similarity, as ``calculate_ssim`` of BasicSR: mean over channels and all whole windows.

    Args:
        img: As for :func:`psnr`, at least 11 pixels high and wide after the crop.
        img2: The same shape.
        crop_border: Pixels left out at each edge.
        test_y_channel: Whether to compare Y (BT.601, 16 to 235) instead.

    Returns:
        From -1 to 1.
    """
    img, img2 = _compared(img, img2, crop_border, test_y_channel)
    margin = SSIM_WINDOW - 1
    total, count = 0.0, 0
    for top in range(0, img.shape[0] - margin, _STRIP):
        rows = slice(top, top + _STRIP + margin)
        similarity = _similarity(img[rows].astype(np.float32), img2[rows].astype(np.float32))
        total += float(similarity.sum(dtype=np.float64))
        count += similarity.size
    return total / count


def _compared(
    img: np.ndarray, img2: np.ndarray, crop_border: int, test_y_channel: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What of two images is compared."""
    if img.shape != img2.shape:
        raise ValueError(f'images of different shapes: {img.shape}, {img2.shape}')
    if crop_border:
        img, img2 = (i[crop_border:-crop_border, crop_border:-crop_border] for i in (img, img2))
    if test_y_channel and img.ndim == 3:
        img, img2 = (cv2.transform(i.astype(np.float32), _Y) for i in (img, img2))
    return img, img2


def _similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SSIM at each whole window of float32 images, whose memory is used for other things.

    It is written in terms of s = x + y and d = x - y, whose windows' means and variances give both numerator and
    denominator: four blurs instead of five, and the small differences that matter do not vanish beside large squares.
    The mean grey is taken out for the same reason; without both float32 would be wrong by 1e-4.
    """
    grey = 2 * y.mean()
    s, d = x + y, np.subtract(x, y, out=x)
    s -= grey
    mean_s, mean_d = _blurred(s), _blurred(d)
    var_s, var_d = _blurred(np.multiply(s, s, out=s)), _blurred(np.multiply(d, d, out=d))
    square_s, square_d = mean_s * mean_s, mean_d * mean_d
    var_s -= square_s
    var_d -= square_d
    mean_s += grey
    np.multiply(mean_s, mean_s, out=square_s)
    # twice every factor of (2 mu_x mu_y + C1)(2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(sigma_x^2 + sigma_y^2 + C2))
    return (
        (square_s - square_d + 2 * _C1) * (var_s - var_d + 2 * _C2)
        / ((square_s + square_d + 2 * _C1) * (var_s + var_d + 2 * _C2))
    )  # fmt: skip


def _blurred(image: np.ndarray) -> np.ndarray:
    """The Gaussian window's mean, at each whole window."""
    half = SSIM_WINDOW // 2
    return cv2.sepFilter2D(image, -1, _GAUSSIAN, _GAUSSIAN)[half:-half, half:-half]
