"""Multi-scale SSIM against the formulas of the MeTriX MuX toolbox, written here with SciPy and whole 2D kernels."""

import numpy as np
import pytest
from basicsr.metrics import calculate_metric
from scipy import ndimage, signal

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.psnr_ssim import MS_SSIM_SIZE, ms_ssim

BT601 = np.array([0.114, 0.587, 0.299])


def low_pass() -> np.ndarray:
    """The nine taps of the biorthogonal 9/7 wavelet from its definition, of sum 1.

    Daubechies' polynomial 1 + 4y + 10y^2 + 20y^3, y = (2 - z - 1/z) / 4, is split: its two complex roots and half of
    the eight zeros at z = -1 are those of this filter.
    """
    y, opposite = np.array([-0.25, 0.5, -0.25]), np.array([0.25, 0.5, 0.25])
    root = max(np.roots([20, 10, 4, 1]), key=lambda r: r.imag)
    square = np.convolve(y, y) - 2 * root.real * np.pad(y, 1) + abs(root) ** 2 * np.eye(5)[2]
    taps = np.convolve(np.convolve(opposite, opposite), square)
    return taps / taps.sum()


def gaussian() -> np.ndarray:
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x * x + y * y) / (2 * 1.5**2))
    return window / window.sum()


def formula(x: np.ndarray, y: np.ndarray) -> float:
    """Of grey float64 pictures."""
    weights, total = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333], 1.0

    def mean(z: np.ndarray) -> np.ndarray:
        return signal.convolve2d(z, gaussian(), mode='valid')

    for scale, weight in enumerate(weights):
        mu_x, mu_y = mean(x), mean(y)
        sd_x, sd_y = (np.emath.sqrt(mean(i * i) - m**2).real for i, m in ((x, mu_x), (y, mu_y)))
        contrast = (2 * sd_x * sd_y + 7.65**2) / (sd_x**2 + sd_y**2 + 7.65**2)
        structure = (mean(x * y) - mu_x * mu_y + 7.65**2 / 2) / (sd_x * sd_y + 7.65**2 / 2)
        total *= contrast.mean() ** weight * structure.mean() ** weight
        if scale == 4:
            total *= ((2 * mu_x * mu_y + 2.55**2) / (mu_x**2 + mu_y**2 + 2.55**2)).mean() ** weight
        kernel = np.outer(low_pass(), low_pass())
        x, y = (ndimage.convolve(i, kernel, mode='reflect')[::2, ::2] for i in (x, y))
    return float(total)


def test_is_the_toolboxs_formula(frame_pair):
    blurry, truth = frame_pair
    assert ms_ssim(blurry, truth) == pytest.approx(formula(blurry @ BT601, truth @ BT601), abs=1e-9)
    noisy = (truth + np.random.default_rng(0).normal(0, 20, truth.shape)).clip(0, 255).round().astype(np.uint8)
    assert ms_ssim(noisy, truth, 7) == pytest.approx(
        formula(*(i[7:-7, 7:-7].astype(np.float64) @ BT601 for i in (noisy, truth))), abs=1e-9
    )


def test_grey_pictures_and_y(frame_pair):
    blurry, truth = (frame[..., 1].astype(np.float64) for frame in frame_pair)
    assert ms_ssim(blurry, truth) == pytest.approx(formula(blurry, truth), abs=1e-9)
    luma = [frame @ np.array([24.966, 128.553, 65.481]) / 255 + 16 for frame in frame_pair]
    assert ms_ssim(*frame_pair, test_y_channel=True) == pytest.approx(formula(*luma), abs=1e-6)  # Y is float32


def test_equal_flat_and_inverted_pictures(frame_pair):
    truth = frame_pair[1]
    assert ms_ssim(truth, truth) == pytest.approx(1, abs=1e-12)
    flat = np.full_like(truth, 99)
    assert ms_ssim(flat, flat) == pytest.approx(1, abs=1e-12)
    assert ms_ssim(255 - truth, truth) == 0  # structure is negative


def test_smallest_size(frame_pair):
    assert MS_SSIM_SIZE == 161
    blurry, truth = (frame[:161, :161] for frame in frame_pair)
    assert 0 < ms_ssim(blurry, truth) < 1
    with pytest.raises(DBLRError, match=r'needs 161 pixels .* 161x160 \(w x h\) are compared; leave it out'):
        ms_ssim(blurry[1:], truth[1:])


def test_is_known_to_basicsr(frame_pair):
    blurry, truth = frame_pair[0].round().astype(np.uint8), frame_pair[1]
    settings = {'type': 'calculate_ms_ssim', 'crop_border': 2, 'better': 'higher'}
    assert calculate_metric({'img': blurry, 'img2': truth}, settings) == ms_ssim(blurry, truth, 2)
