"""Our PSNR and SSIM give the figures of BasicSR's, and our 3-D SSIM those of MATLAB's formula in float64."""

import math

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_metric, calculate_psnr, calculate_ssim
from scipy import ndimage

from dblr_plugin.evaluation.psnr_ssim import psnr, ssim, ssim_3d

SIZE = (61, 83, 3)  # neither a multiple of the strips


def _texture(rng: np.random.Generator) -> np.ndarray:
    smooth = cv2.GaussianBlur(rng.random(SIZE), (0, 0), 2)
    return (smooth - smooth.min()) / np.ptp(smooth) * 255


def _halves(rng: np.random.Generator) -> np.ndarray:
    """Black and white side by side: where float32 has the hardest time."""
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
def test_figures_are_basicsrs(content: str, noise: float, kind: str, crop: int, luma: bool) -> None:
    images = _pair(content, noise, kind)
    theirs = calculate_psnr(*images, crop_border=crop, test_y_channel=luma)
    assert psnr(*images, crop, luma) == pytest.approx(theirs, abs=1e-4 if luma else 1e-9)
    theirs = calculate_ssim(*images, crop_border=crop, test_y_channel=luma)
    assert ssim(*images, crop, luma) == pytest.approx(theirs, abs=3e-6 if content == 'halves' else 1e-7)


def _matlab(one: np.ndarray, other: np.ndarray) -> float:
    """``ssim`` of MATLAB (2021): a Gaussian of 11 values along every axis, the nearest value beyond the ends."""
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
def test_3d_figures_are_matlabs(content: str, noise: float, kind: str, crop: int) -> None:
    images = _pair(content, noise, kind)
    inner = [image[crop : SIZE[0] - crop, crop : SIZE[1] - crop] for image in images]
    assert ssim_3d(*images, crop) == pytest.approx(_matlab(*inner), abs=3e-6 if content == 'halves' else 1e-6)
    assert ssim_3d(*(i[..., ::-1] for i in images), crop) == pytest.approx(ssim_3d(*images, crop), abs=1e-7)


def test_3d_of_grey_images_and_of_y() -> None:
    """A grey picture has no third axis."""
    images = _pair('texture', 3, 'uint8')
    assert ssim_3d(*(i[..., 0] for i in images)) == pytest.approx(_matlab(*(i[..., 0] for i in images)), abs=1e-6)
    luma = [image @ np.array([24.966, 128.553, 65.481]) / 255 + 16 for image in images]
    assert ssim_3d(*images, test_y_channel=True) == pytest.approx(_matlab(*luma), abs=1e-6)


def test_3d_is_known_to_basicsr() -> None:
    images = dict(zip(('img', 'img2'), _pair('texture', 3, 'uint8'), strict=True))
    settings = {'type': 'calculate_ssim_3d', 'crop_border': 4, 'better': 'higher'}
    assert calculate_metric(images, settings) == ssim_3d(**images, crop_border=4)


def test_grey_images() -> None:
    one, other = (image[..., 0].astype(np.float64) for image in _pair('texture', 3, 'uint8'))
    assert psnr(one, other) == pytest.approx(calculate_psnr(one, other, crop_border=0), abs=1e-9)
    assert ssim(one, other) == pytest.approx(calculate_ssim(one, other, crop_border=0), abs=1e-7)


def test_equal_images() -> None:
    image = _pair('texture', 3, 'uint8')[0]
    assert psnr(image, image) == math.inf
    assert ssim(image, image) == pytest.approx(1, abs=1e-7)


def test_shapes_must_agree() -> None:
    one, other = _pair('texture', 3, 'uint8')
    with pytest.raises(ValueError, match=r'different shapes: \(61, 83, 3\), \(60, 83, 3\)'):
        psnr(one, other[1:])
