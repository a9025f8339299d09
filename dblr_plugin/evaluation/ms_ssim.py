"""Multi-scale SSIM (Wang et al., 2003) as the evaluation code behind the DVD figures computes it.

Su et al. give PSNR and multi-scale SSIM ("PSNR/MSSIM", their repository's issue 2) by the code of Koehler et al., whose
MSSIM is that of the MeTriX MuX toolbox. It differs from other implementations: a biorthogonal 9/7 filter before each
halving, not a mean of 2x2 pixels, and contrast and structure averaged each by itself.
"""

from __future__ import annotations

import cv2
import numpy as np

from dblr_plugin.evaluation.psnr_ssim import LUMINANCE, SSIM_WINDOW, compared

__all__ = ['MS_SSIM_SIZE', 'ms_ssim']

# the weights of the scales, finest first (Wang et al.); luminance has that of the coarsest
_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
#: Least height and width, pixels: the coarsest scale holds one window
MS_SSIM_SIZE = (SSIM_WINDOW - 1) * 2 ** (len(_WEIGHTS) - 1) + 1
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_GAUSSIAN = cv2.getGaussianKernel(SSIM_WINDOW, 1.5, cv2.CV_64F)
# one half of the analysis low-pass filter of the biorthogonal 9/7 wavelet (Cohen, Daubechies and Feauveau), and all
_HALF = [0.037828455507260, -0.023849465019560, -0.110624404418440, 0.377402855612830, 0.852698679008890]
_LOW_PASS = np.array([*_HALF, *_HALF[-2::-1]])
_LOW_PASS /= _LOW_PASS.sum()


def ms_ssim(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """Multi-scale structural similarity of the luminance, over five scales.

    It is ``L_5^0.1333 * prod_j (C_j * S_j)^w_j`` with w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333, where L, C and S are
    the means over all whole windows of luminance, contrast and structure.

    Args:
        img: BGR ``(h, w, 3)``, of which BT.601 luminance (0 to 255) is taken, or grey ``(h, w)``; in [0, 255], any
            type, at least 161 pixels high and wide after the crop.
        img2: The same shape.
        crop_border: Pixels left out at each edge.
        test_y_channel: Whether to take Y (BT.601, 16 to 235) instead.

    Returns:
        From 0 to 1; 0 where a mean is negative, which a power of these weights does not take.

    Raises:
        DBLRError: The images are smaller.
    """
    pair = compared(img, img2, crop_border, test_y_channel, 'multi-scale SSIM', MS_SSIM_SIZE)
    img, img2 = map(_grey, pair)
    scales = [_components(img, img2)]
    for _ in _WEIGHTS[1:]:
        img, img2 = _halved(img), _halved(img2)
        scales.append(_components(img, img2))
    luminance, contrast, structure = np.maximum(scales, 0).T
    return float(luminance[-1] ** _WEIGHTS[-1] * np.prod((contrast * structure) ** _WEIGHTS))


def _grey(image: np.ndarray) -> np.ndarray:
    """Luminance as float64 ``(h, w)``."""
    return image @ LUMINANCE if image.ndim == 3 else image.astype(np.float64)


def _halved(image: np.ndarray) -> np.ndarray:
    """Every second pixel from the first, after the low-pass filter; the picture is mirrored beyond its borders."""
    return cv2.sepFilter2D(image, -1, _LOW_PASS, _LOW_PASS, borderType=cv2.BORDER_REFLECT)[::2, ::2]


def _components(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Means over all whole windows of luminance, contrast and structure."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    # rounding may take the variance of a flat window below 0
    variance_x, variance_y = (np.maximum(_blurred(i * i) - m * m, 0) for i, m in ((x, mean_x), (y, mean_y)))
    covariance = _blurred(x * y) - mean_x * mean_y
    deviations = np.sqrt(variance_x * variance_y)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    contrast = (2 * deviations + _C2) / (variance_x + variance_y + _C2)
    structure = (covariance + _C2 / 2) / (deviations + _C2 / 2)
    return float(luminance.mean()), float(contrast.mean()), float(structure.mean())


def _blurred(image: np.ndarray) -> np.ndarray:
    """The Gaussian window's mean, at each whole window."""
    half = SSIM_WINDOW // 2
    return cv2.sepFilter2D(image, -1, _GAUSSIAN, _GAUSSIAN)[half:-half, half:-half]
