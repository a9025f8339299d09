"""PSNR and SSIM equal BasicSR's, 3-D SSIM equals MATLAB's, multi-scale SSIM equals the MeTriX MuX toolbox's."""

import math

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_metric, calculate_psnr, calculate_ssim
from scipy import ndimage, signal

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.psnr_ssim import MS_SSIM_SIZE, ms_ssim, psnr, ssim, ssim_3d

SIZE = (61, 83, 3)  # not multiples of the strip height


def _texture(rng: np.random.Generator) -> np.ndarray:
    smooth = cv2.GaussianBlur(rng.random(SIZE), (0, 0), 2)
    return (smooth - smooth.min()) / np.ptp(smooth) * 255


def _halves(rng: np.random.Generator) -> np.ndarray:
    """Black and white side by side, where rounding errors of float32 are largest."""
    image = np.zeros(SIZE)
    image[:, SIZE[1] // 2 :] = 255
    return image


CONTENTS = {
    'texture': _texture,
    'halves': _halves,
    'white': lambda rng: np.full(SIZE, 255.0),
    'bright': lambda rng: np.full(SIZE, 235.0),
    'black': lambda rng: np.zeros(SIZE),
    'ramp': lambda rng: np.broadcast_to(np.linspace(0, 255, SIZE[1])[None, :, None], SIZE),
    'noise': lambda rng: rng.uniform(0, 255, SIZE),
}


def _pair(content: str, noise: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = CONTENTS[content](rng).round()
    restored = (truth + rng.normal(0, noise, SIZE)).clip(0, 255)
    restored = restored.round().astype(np.uint8) if kind == 'uint8' else restored.astype(np.float32)
    return restored, truth.astype(np.uint8)


@pytest.mark.parametrize('kind', ['uint8', 'float'])
@pytest.mark.parametrize('noise', [0.5, 3, 40])
@pytest.mark.parametrize('content', CONTENTS)
@pytest.mark.parametrize('crop, luma', [(0, False), (4, False), (0, True)])
def test_psnr_and_ssim_equal_basicsr(content: str, noise: float, kind: str, crop: int, luma: bool) -> None:
    images = _pair(content, noise, kind)
    theirs = calculate_psnr(*images, crop_border=crop, test_y_channel=luma)
    assert psnr(*images, crop, luma) == pytest.approx(theirs, abs=1e-4 if luma else 1e-9)
    theirs = calculate_ssim(*images, crop_border=crop, test_y_channel=luma)
    assert ssim(*images, crop, luma) == pytest.approx(theirs, abs=3e-6 if content == 'halves' else 1e-7)


def _matlab(one: np.ndarray, other: np.ndarray) -> float:
    """``ssim`` of MATLAB (2021): a Gaussian of 11 taps along every axis, with replicated borders."""
    x, y = (image.astype(np.float64) for image in (one, other))

    def mean(z: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(z, 1.5, radius=5, mode='nearest')

    mu_x, mu_y, c1, c2 = mean(x), mean(y), 2.55**2, 7.65**2
    covariance, variances = mean(x * y) - mu_x * mu_y, mean(x * x + y * y) - mu_x**2 - mu_y**2
    return float(((2 * mu_x * mu_y + c1) * (2 * covariance + c2) / (mu_x**2 + mu_y**2 + c1) / (variances + c2)).mean())


@pytest.mark.parametrize('kind', ['uint8', 'float'])
@pytest.mark.parametrize('noise', [0.5, 3, 40])
@pytest.mark.parametrize('content', CONTENTS)
@pytest.mark.parametrize('crop', [0, 4])
def test_ssim_3d_equals_matlab(content: str, noise: float, kind: str, crop: int) -> None:
    images = _pair(content, noise, kind)
    inner = [image[crop : SIZE[0] - crop, crop : SIZE[1] - crop] for image in images]
    assert ssim_3d(*images, crop) == pytest.approx(_matlab(*inner), abs=3e-6 if content == 'halves' else 1e-6)
    assert ssim_3d(*(i[..., ::-1] for i in images), crop) == pytest.approx(ssim_3d(*images, crop), abs=1e-7)


def test_ssim_3d_of_grey_images_and_of_y() -> None:
    """Grey images have two axes, so that MATLAB filters along two."""
    images = _pair('texture', 3, 'uint8')
    assert ssim_3d(*(i[..., 0] for i in images)) == pytest.approx(_matlab(*(i[..., 0] for i in images)), abs=1e-6)
    luma = [image @ np.array([24.966, 128.553, 65.481]) / 255 + 16 for image in images]
    assert ssim_3d(*images, test_y_channel=True) == pytest.approx(_matlab(*luma), abs=1e-6)


def test_ssim_3d_is_registered_in_basicsr() -> None:
    images = dict(zip(('img', 'img2'), _pair('texture', 3, 'uint8'), strict=True))
    settings = {'type': 'calculate_ssim_3d', 'crop_border': 4, 'better': 'higher'}
    assert calculate_metric(images, settings) == ssim_3d(**images, crop_border=4)


def test_psnr_and_ssim_of_grey_images_equal_basicsr() -> None:
    one, other = (image[..., 0].astype(np.float64) for image in _pair('texture', 3, 'uint8'))
    assert psnr(one, other) == pytest.approx(calculate_psnr(one, other, crop_border=0), abs=1e-9)
    assert ssim(one, other) == pytest.approx(calculate_ssim(one, other, crop_border=0), abs=1e-7)


def test_psnr_and_ssim_of_equal_images() -> None:
    image = _pair('texture', 3, 'uint8')[0]
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == pytest.approx(1, abs=1e-7)


def test_shapes_must_agree() -> None:
    one, other = _pair('texture', 3, 'uint8')
    with pytest.raises(ValueError, match=r'different shapes: \(61, 83, 3\), \(60, 83, 3\)'):
        psnr(one, other[1:])


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
    """Multi-scale SSIM of grey float64 images."""
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


def test_ms_ssim_equals_the_toolboxs_formula(frame_pair):
    blurry, truth = frame_pair
    assert ms_ssim(blurry, truth) == pytest.approx(formula(blurry @ BT601, truth @ BT601), abs=1e-9)
    noisy = (truth + np.random.default_rng(0).normal(0, 20, truth.shape)).clip(0, 255).round().astype(np.uint8)
    assert ms_ssim(noisy, truth, 7) == pytest.approx(
        formula(*(i[7:-7, 7:-7].astype(np.float64) @ BT601 for i in (noisy, truth))), abs=1e-9
    )


def test_ms_ssim_of_grey_images_and_of_y(frame_pair):
    blurry, truth = (frame[..., 1].astype(np.float64) for frame in frame_pair)
    assert ms_ssim(blurry, truth) == pytest.approx(formula(blurry, truth), abs=1e-9)
    luma = [frame @ np.array([24.966, 128.553, 65.481]) / 255 + 16 for frame in frame_pair]
    assert ms_ssim(*frame_pair, test_y_channel=True) == pytest.approx(formula(*luma), abs=1e-6)  # Y is float32


def test_ms_ssim_of_equal_flat_and_inverted_images(frame_pair):
    truth = frame_pair[1]
    assert ms_ssim(truth, truth) == pytest.approx(1, abs=1e-12)
    flat = np.full_like(truth, 99)
    assert ms_ssim(flat, flat) == pytest.approx(1, abs=1e-12)
    assert ms_ssim(255 - truth, truth) == 0  # structure is negative


def test_ms_ssim_needs_161_pixels(frame_pair):
    assert MS_SSIM_SIZE == 161
    blurry, truth = (frame[:161, :161] for frame in frame_pair)
    assert 0 < ms_ssim(blurry, truth) < 1
    with pytest.raises(DBLRError, match=r'needs 161 pixels .* 161x160 \(w x h\) are compared; leave it out'):
        ms_ssim(blurry[1:], truth[1:])


def test_ms_ssim_is_registered_in_basicsr(frame_pair):
    blurry, truth = frame_pair[0].round().astype(np.uint8), frame_pair[1]
    settings = {'type': 'calculate_ms_ssim', 'crop_border': 2, 'better': 'higher'}
    assert calculate_metric({'img': blurry, 'img2': truth}, settings) == ms_ssim(blurry, truth, 2)
