import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from dblr_plugin.archs import FourierBurstAccumulation


def texture(height: int = 96, width: int = 128) -> torch.Tensor:
    """RGB (3, h, w) with detail of all sizes."""
    noise = np.random.default_rng(0).random((3, height, width)).astype(np.float32)
    return torch.from_numpy(0.5 * noise + 0.5 * ndimage.gaussian_filter(noise, (0, 4, 4), mode='wrap'))


def blurred(image: torch.Tensor, angle: float, length: int = 9) -> torch.Tensor:
    """Blurred along a line, as by a shake in that direction; what leaves on one side comes in on the other."""
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), angle, 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    planes = [ndimage.convolve(plane, kernel / kernel.sum(), mode='wrap') for plane in image.numpy()]
    return torch.from_numpy(np.stack(planes))


def error(restored: torch.Tensor, truth: torch.Tensor) -> float:
    return float((restored - truth).square().mean())


def test_identical_frames_stay():
    x = texture().expand(2, 5, 3, 96, 128)
    torch.testing.assert_close(FourierBurstAccumulation()(x), x[:, 2], atol=1e-6, rtol=0)


def test_without_weights_it_is_the_mean():
    x = torch.rand(1, 5, 3, 33, 40)
    torch.testing.assert_close(FourierBurstAccumulation(p=0)(x), x.mean(dim=1), atol=1e-6, rtol=0)


def test_a_sharp_frame_wins_over_blurry_ones():
    sharp = texture()
    window = torch.stack([blurred(sharp, 0), blurred(sharp, 40), sharp, blurred(sharp, 90), blurred(sharp, 130)])
    restored = FourierBurstAccumulation(kernel_size=20)(window[None])[0]
    assert error(restored, sharp) < 0.05 * error(window.mean(dim=0), sharp)


def test_frames_blurred_in_all_directions_make_one_sharper_than_each():
    sharp = texture()
    window = torch.stack([blurred(sharp, angle) for angle in (0, 36, 72, 108, 144)])
    restored = FourierBurstAccumulation(kernel_size=20)(window[None])[0]
    assert error(restored, sharp) < 0.6 * min(error(frame, sharp) for frame in window)
    assert error(restored, sharp) < 0.6 * error(window.mean(dim=0), sharp)


@pytest.mark.parametrize(('p', 'kernel_size'), [(11, 20), (3, 8)])
def test_is_the_published_formula(p, kernel_size):
    """With SciPy's Gaussian, in float64."""
    x = torch.rand(1, 3, 3, 60, 71, generator=torch.Generator().manual_seed(0))
    spectra = np.fft.fft2(x[0].double().numpy())
    sigma = 60 / kernel_size
    smooth = [ndimage.gaussian_filter(np.abs(v).mean(0), sigma, mode='wrap', truncate=8) for v in spectra]
    powers = np.stack(smooth) ** p
    weights = powers / powers.sum(0)
    expected = np.fft.ifft2((weights[:, None] * spectra).sum(0)).real
    restored = FourierBurstAccumulation(p=p, kernel_size=kernel_size)(x)[0]
    np.testing.assert_allclose(restored.numpy(), expected, atol=2e-5)


def test_black_frames_and_mixed_precision():
    net = FourierBurstAccumulation()
    assert torch.equal(net(torch.zeros(1, 5, 3, 8, 8)), torch.zeros(1, 3, 8, 8))
    x = torch.rand(1, 5, 3, 16, 16)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(net(x), net.float()(x)) and net(x).dtype == torch.float32
    torch.testing.assert_close(net(x.bfloat16()), net(x.bfloat16().float()).bfloat16())
