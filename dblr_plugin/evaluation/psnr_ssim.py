"""BasicSR's PSNR and SSIM, several times as fast; MATLAB's SSIM; multi-scale SSIM; alignment of frames for them.

Scores agree with ``basicsr/metrics/psnr_ssim.py``: PSNR to rounding, SSIM to 1e-7, or 3e-6 where black meets white, as
tests verify. ``scripts/speed/metrics.py`` measures the speed-up. MATLAB's ``psnr`` of uint8 images gives the same PSNR;
its ``ssim`` differs for colour images, see :func:`ssim_3d`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from dblr_plugin.errors import DBLRError, counted

__all__ = [
    'LUMINANCE', 'MS_SSIM_SIZE', 'SSIM_WINDOW', 'compared', 'estimate_gain', 'estimate_shift', 'ms_ssim', 'psnr',
    'register', 'shifted', 'ssim', 'ssim_3d',
]  # fmt: skip

SSIM_WINDOW = 11  # pixels
_PEAK = 255.0
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
_GAUSSIAN = cv2.getGaussianKernel(SSIM_WINDOW, 1.5, cv2.CV_32F)
# the same window across the three channels of an image treated as a volume, with the first and last channel repeated
_TAPS = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
_ACROSS_CHANNELS = np.array(
    [[_GAUSSIAN[np.clip(to + _TAPS, 0, 2) == channel].sum() for channel in range(3)] for to in range(3)], np.float32
)
# output rows per strip: small enough for its float32 intermediate images to stay in a core's cache
_STRIP = 32
# Y (BT.601, 16 to 235) of BGR in [0, 255], as in basicsr/utils/matlab_functions.py
_Y = np.array([[24.966 / 255, 128.553 / 255, 65.481 / 255, 16]], dtype=np.float32)
#: ITU-R BT.601 luminance of BGR without offset, in the full range [0, 255]
LUMINANCE = np.array([0.114, 0.587, 0.299])


def psnr(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """Peak signal-to-noise ratio, as BasicSR's ``calculate_psnr``.

    Args:
        img: BGR ``(h, w, 3)`` or grey ``(h, w)`` in [0, 255], any type.
        img2: The same shape.
        crop_border: Pixels ignored at each edge.
        test_y_channel: Whether to compare Y (BT.601, 16 to 235) instead.

    Returns:
        dB; infinite for equal images.

    Raises:
        DBLRError: Nothing is left after the crop.
    """
    img, img2 = compared(img, img2, crop_border, test_y_channel, 'PSNR', 1)
    if img.dtype != img2.dtype:  # OpenCV requires equal types
        img, img2 = img.astype(np.float64), img2.astype(np.float64)
    error = cv2.norm(img, img2, cv2.NORM_L2SQR) / img.size
    return 10 * math.log10(_PEAK**2 / error) if error else math.inf


def ssim(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """Structural similarity, as BasicSR's ``calculate_ssim``: the mean over channels and all whole windows.

    Args:
        img: As for :func:`psnr`, at least 11 pixels high and wide after the crop.
        img2: The same shape.
        crop_border: Pixels ignored at each edge.
        test_y_channel: Whether to compare Y (BT.601, 16 to 235) instead.

    Returns:
        From -1 to 1.

    Raises:
        DBLRError: The images are too small.
    """
    return _mean_similarity(*compared(img, img2, crop_border, test_y_channel, 'SSIM', SSIM_WINDOW), _blurred)


def ssim_3d(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """Structural similarity as computed by MATLAB's ``ssim``, which some papers report.

    A colour image is treated as a volume (``ssim.m``: "RGB images will also be processed as 3D volumetric images"): the
    Gaussian with 11 taps and sigma 1.5 runs along height, width and channels. Pixels beyond the borders, and channels
    beyond the first and last, repeat the nearest; the mean is over all pixels and channels.

    Args:
        img: As for :func:`ssim`; a grey image is two-dimensional in MATLAB too.
        img2: The same shape.
        crop_border: Pixels ignored at each edge.
        test_y_channel: Whether to compare Y (BT.601, 16 to 235) instead.

    Returns:
        From -1 to 1.

    Raises:
        DBLRError: The images are too small.
    """
    img, img2 = compared(img, img2, crop_border, test_y_channel, 'SSIM', SSIM_WINDOW)
    half = SSIM_WINDOW // 2
    img, img2 = (cv2.copyMakeBorder(i, half, half, half, half, cv2.BORDER_REPLICATE) for i in (img, img2))
    return _mean_similarity(img, img2, _blurred_3d if img.ndim == 3 else _blurred)


def compared(
    img: np.ndarray, img2: np.ndarray, crop_border: int, test_y_channel: bool, metric: str, min_side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prepares two images for comparison: crops borders and, if requested, converts colour to Y.

    Raises:
        DBLRError: Height or width is below ``min_side``, the pixels ``metric`` needs.
    """
    if img.shape != img2.shape:
        raise ValueError(f'images of different shapes: {img.shape}, {img2.shape}')
    if crop_border:
        img, img2 = (i[crop_border:-crop_border, crop_border:-crop_border] for i in (img, img2))
    if min(img.shape[:2]) < min_side:
        cropped = f' without {counted(crop_border, "pixel")} at each edge (crop_border)' if crop_border else ''
        raise DBLRError(
            f'{metric} needs {counted(min_side, "pixel")} of height and width, and {img.shape[1]}x{img.shape[0]} '
            f'(w x h) are compared{cropped}; leave it out for such frames'
        )
    if test_y_channel and img.ndim == 3:
        img, img2 = (cv2.transform(i.astype(np.float32), _Y) for i in (img, img2))
    return img, img2


def _mean_similarity(img: np.ndarray, img2: np.ndarray, blurred: Callable[[np.ndarray], np.ndarray]) -> float:
    """Computes the mean SSIM over all whole windows, strip by strip."""
    margin = SSIM_WINDOW - 1
    total, count = 0.0, 0
    for top in range(0, img.shape[0] - margin, _STRIP):
        rows = slice(top, top + _STRIP + margin)
        similarity = _similarity(img[rows].astype(np.float32), img2[rows].astype(np.float32), blurred)
        total += float(similarity.sum(dtype=np.float64))
        count += similarity.size
    return total / count


def _similarity(x: np.ndarray, y: np.ndarray, blurred: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Computes SSIM for each whole window of float32 images, whose memory is overwritten.

    It is expressed in s = x + y and d = x - y, whose windowed means and variances give both numerator and denominator:
    this takes four blurs instead of five, and the small differences that matter do not vanish next to large squares.
    The mean grey value is subtracted for the same reason; without both, float32 would be off by 1e-4.
    """
    grey = 2 * y.mean()
    s, d = x + y, np.subtract(x, y, out=x)
    s -= grey
    mean_s, mean_d = blurred(s), blurred(d)
    var_s, var_d = blurred(np.multiply(s, s, out=s)), blurred(np.multiply(d, d, out=d))
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


def _blurred(image: np.ndarray, window: np.ndarray = _GAUSSIAN) -> np.ndarray:
    """Computes the Gaussian-weighted mean of each whole window."""
    half = SSIM_WINDOW // 2
    return cv2.sepFilter2D(image, -1, window, window)[half:-half, half:-half]


def _blurred_3d(image: np.ndarray) -> np.ndarray:
    """Does the same for a volume ``(h, w, 3)``, with its first and last channel repeated."""
    return cv2.transform(_blurred(image), _ACROSS_CHANNELS)


# Su et al. report PSNR and multi-scale SSIM ("PSNR/MSSIM", issue 2 of their repository) from the code of Koehler et
# al., whose MSSIM is that of the MeTriX MuX toolbox. It differs from other implementations: a biorthogonal 9/7 filter
# before each halving instead of a mean of 2x2 pixels, and separate averages of contrast and structure.

# scale weights, finest first (Wang et al.); luminance has that of the coarsest
_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
#: Minimum height and width in pixels: the coarsest scale holds one window
MS_SSIM_SIZE = (SSIM_WINDOW - 1) * 2 ** (len(_WEIGHTS) - 1) + 1
_GAUSSIAN_64 = cv2.getGaussianKernel(SSIM_WINDOW, 1.5, cv2.CV_64F)
# the analysis low-pass filter of the biorthogonal 9/7 wavelet (Cohen, Daubechies and Feauveau): first half, then whole
_HALF = [0.037828455507260, -0.023849465019560, -0.110624404418440, 0.377402855612830, 0.852698679008890]
_LOW_PASS = np.array([*_HALF, *_HALF[-2::-1]])
_LOW_PASS /= _LOW_PASS.sum()


def ms_ssim(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, test_y_channel: bool = False) -> float:
    """Multi-scale structural similarity of the luminance, over five scales.

    The score is ``L_5^0.1333 * prod_j (C_j * S_j)^w_j`` with w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333, where L, C and
    S are the means of luminance, contrast and structure over all whole windows.

    Args:
        img: BGR ``(h, w, 3)``, converted to BT.601 luminance (0 to 255), or grey ``(h, w)``; in [0, 255], any type, at
            least 161 pixels high and wide after the crop.
        img2: The same shape.
        crop_border: Pixels ignored at each edge.
        test_y_channel: Whether to use Y (BT.601, 16 to 235) instead.

    Returns:
        From 0 to 1; 0 if a mean is negative, as these powers are undefined for it.

    Raises:
        DBLRError: The images are too small.
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
    """Converts an image to float64 luminance ``(h, w)``."""
    return image @ LUMINANCE if image.ndim == 3 else image.astype(np.float64)


def _halved(image: np.ndarray) -> np.ndarray:
    """Low-pass filters an image, mirrored beyond its borders, and keeps every second pixel from the first."""
    return cv2.sepFilter2D(image, -1, _LOW_PASS, _LOW_PASS, borderType=cv2.BORDER_REFLECT)[::2, ::2]


def _components(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Means of luminance, contrast and structure over all whole windows."""
    mean_x, mean_y = _blurred(x, _GAUSSIAN_64), _blurred(y, _GAUSSIAN_64)
    # rounding may push the variance of a flat window below 0
    variance_x, variance_y = (
        np.maximum(_blurred(i * i, _GAUSSIAN_64) - m * m, 0) for i, m in ((x, mean_x), (y, mean_y))
    )
    covariance = _blurred(x * y, _GAUSSIAN_64) - mean_x * mean_y
    deviations = np.sqrt(variance_x * variance_y)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    contrast = (2 * deviations + _C2) / (variance_x + variance_y + _C2)
    structure = (covariance + _C2 / 2) / (deviations + _C2 / 2)
    return float(luminance.mean()), float(contrast.mean()), float(structure.mean())


# Koehler et al., Recording and Playback of Camera Shake (ECCV 2012; eval_image.m), whose code Su et al. used for their
# figures on DVD, align each frame by one gain, then one whole-pixel shift. As there, the gain is estimated from the
# frames before the shift, so it comes out too low if they are shifted; and pixels uncovered by the shift are black in
# both frames and count as equal.


def register(restored: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Aligns a restored frame in brightness and position with the ground truth.

    Args:
        restored: ``(h, w, c)``, any range.
        truth: The same shape and range.

    Returns:
        The scaled and shifted restored frame, and the ground truth, float64 ``(h, w, c)``; both are 0 outside the
        shifted frame.
    """
    restored, truth = restored.astype(np.float64), truth.astype(np.float64)
    scaled = restored * estimate_gain(restored, truth)
    shift = estimate_shift(scaled, truth)
    return shifted(scaled, shift), truth * shifted(np.ones_like(truth), shift)


def estimate_gain(restored: np.ndarray, truth: np.ndarray) -> float:
    """Factor g that minimises the sum of ``(truth - g * restored)^2`` over all pixels and channels; 1 for black."""
    restored, truth = (frame.astype(np.float64).ravel() for frame in (restored, truth))
    energy = restored @ restored
    return float(truth @ restored / energy) if energy > 0 else 1.0


def estimate_shift(restored: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Finds the shift from a restored frame to the ground truth.

    It is the peak of the cyclic cross-correlation of the frames' channel means (``dftregistration`` of
    Guizar-Sicairos et al., Optics Letters 2008, with whole-pixel accuracy). Three FFTs search all shifts.

    Args:
        restored: ``(h, w, c)``.
        truth: The same shape.

    Returns:
        Rows down and columns right, from -h / 2 to h / 2 and from -w / 2 to w / 2.
    """
    moving, fixed = (np.fft.rfft2(frame.mean(axis=2)) for frame in (restored, truth))
    correlation = np.fft.irfft2(fixed * moving.conj(), s=truth.shape[:2])
    # flat frames correlate equally at every shift, and rounding would pick one
    if correlation[0, 0] >= correlation.max() * (1 - 1e-12):
        return 0, 0
    height, width = correlation.shape
    row, column = divmod(int(correlation.argmax()), width)
    return row if row < height // 2 else row - height, column if column < width // 2 else column - width


def shifted(frame: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Shifts a frame ``(h, w, c)`` by ``shift`` (rows down, columns right) within its bounds, filling with 0."""
    matrix = np.array([[1.0, 0, shift[1]], [0, 1, shift[0]]])
    return cv2.warpAffine(frame, matrix, frame.shape[1::-1], flags=cv2.INTER_NEAREST).reshape(frame.shape)
