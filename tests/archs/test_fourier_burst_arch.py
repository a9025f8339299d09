"""FourierBurstAccumulation: weights, blocks and noise."""

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from dblr_plugin.archs import FourierBurstAccumulation
from dblr_plugin.archs.untrained_arch import _windows


def texture(height: int = 96, width: int = 128) -> torch.Tensor:
    """Returns RGB (3, h, w) with detail of all sizes."""
    noise = np.random.default_rng(0).random((3, height, width)).astype(np.float32)
    return torch.from_numpy(0.5 * noise + 0.5 * ndimage.gaussian_filter(noise, (0, 4, 4), mode='wrap'))


def blurred(image: torch.Tensor, angle: float, length: int = 9) -> torch.Tensor:
    """Blurs along a line, like camera shake in that direction, with periodic borders."""
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), angle, 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    planes = [ndimage.convolve(plane, kernel / kernel.sum(), mode='wrap') for plane in image.numpy()]
    return torch.from_numpy(np.stack(planes))


def error(restored: torch.Tensor, truth: torch.Tensor) -> float:
    return float((restored - truth).square().mean())


@pytest.mark.parametrize(('size', 'block_size'), [
    ((96, 128), 512), ((96, 128), 32), ((33, 57), 16), ((7, 100), 512), ((1, 1), 512), ((1, 9), 4),
])  # fmt: skip
def test_identical_frames_are_not_changed(size, block_size):
    x = texture(*size)[None, None].expand(2, 5, 3, *size)
    torch.testing.assert_close(FourierBurstAccumulation(block_size=block_size)(x), x[:, 2], atol=2e-6, rtol=0)


@pytest.mark.parametrize('block_size', [8, 512])
def test_power_of_zero_gives_the_mean(block_size):
    x = torch.rand(1, 5, 3, 33, 40)
    restored = FourierBurstAccumulation(p=0, block_size=block_size)(x)
    torch.testing.assert_close(restored, x.mean(dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize('block', [2, 8, 64])
@pytest.mark.parametrize('count', [1, 2, 5])
def test_windows_sum_to_one(count, block):
    total = torch.zeros((count + 1) * block // 2, dtype=torch.float64)
    for i, window in enumerate(_windows(count, block)):
        assert (window > 0).all()
        total[i * block // 2 : i * block // 2 + block] += window
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-12, rtol=0)


def test_sharp_frame_outweighs_blurry_ones():
    sharp = texture()
    window = torch.stack([blurred(sharp, 0), blurred(sharp, 40), sharp, blurred(sharp, 90), blurred(sharp, 130)])
    restored = FourierBurstAccumulation(kernel_size=20)(window[None])[0]
    assert error(restored, sharp) < 0.05 * error(window.mean(dim=0), sharp)


def test_frames_blurred_in_all_directions_give_a_sharper_one():
    sharp = texture()
    window = torch.stack([blurred(sharp, angle) for angle in (0, 36, 72, 108, 144)])
    restored = FourierBurstAccumulation(kernel_size=20, noise=0)(window[None])[0]
    assert error(restored, sharp) < 0.6 * min(error(frame, sharp) for frame in window)
    assert error(restored, sharp) < 0.6 * error(window.mean(dim=0), sharp)


def merged(block: np.ndarray, p: float, kernel_size: float, noise: float) -> np.ndarray:
    """Merges one block ``(t, c, n, n)`` in float64, with full spectra and SciPy's Gaussian."""
    size = block.shape[-1]
    spectra = np.fft.fft2(block)
    smooth = [ndimage.gaussian_filter(np.abs(v).mean(0), size / kernel_size, mode='wrap', truncate=8) for v in spectra]
    powers = np.maximum(smooth, noise * size * np.sqrt(np.pi) / 2) ** p
    return np.fft.ifft2((powers[:, None] * spectra).sum(0) / powers.sum(0)).real


@pytest.mark.parametrize(('p', 'kernel_size', 'noise'), [(11, 20, 0.0), (3, 8, 0.0), (11, 30, 0.03)])
def test_one_block_equals_the_published_formula(p, kernel_size, noise):
    x = torch.rand(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = merged(x[0].double().numpy(), p, kernel_size, noise)
    restored = FourierBurstAccumulation(p=p, kernel_size=kernel_size, noise=noise)(x)[0]
    np.testing.assert_allclose(restored.numpy(), expected, atol=2e-5)


def test_blocks_are_mirrored_and_joined_by_hann_windows():
    """37x50 in blocks of 16 with a stride of 8: the last ones extend 3 and 6 pixels beyond the frame."""
    x = torch.rand(1, 3, 2, 37, 50, generator=torch.Generator().manual_seed(1))
    padded = np.pad(x[0].double().numpy(), ((0, 0), (0, 0), (0, 3), (0, 6)), mode='reflect')
    window = np.outer(np.hanning(33)[1::2], np.hanning(33)[1::2])
    total, weights = np.zeros((2, 40, 56)), np.zeros((40, 56))
    for top in range(0, 25, 8):
        for left in range(0, 41, 8):
            place = np.s_[..., top : top + 16, left : left + 16]
            total[place] += window * merged(padded[place], 11, 8, 0.03)
            weights[place] += window
    net = FourierBurstAccumulation(num_in_ch=2, num_frame=3, block_size=16, kernel_size=8)
    np.testing.assert_allclose(net(x)[0].numpy(), (total / weights)[:, :37, :50], atol=2e-5)


def test_noise_is_averaged():
    """A frame with stronger noise must not get a higher weight for it."""
    grey, noise = torch.full((1, 5, 3, 64, 64), 0.5), torch.randn(1, 5, 3, 64, 64, generator=torch.Generator())
    noisy = grey + noise * torch.tensor([0.01, 0.01, 0.01, 0.01, 0.02]).view(1, 5, 1, 1, 1)
    errors = [error(FourierBurstAccumulation(noise=n)(noisy), grey[:, 0]) for n in (0.03, 0.0)]
    assert errors[0] < 0.3 * errors[1]
    assert errors[0] == pytest.approx(error(noisy.mean(dim=1), grey[:, 0]), rel=0.1)


@pytest.mark.parametrize('block_size', [0, 7, -2])
def test_odd_block_sizes_are_refused(block_size):
    with pytest.raises(ValueError, match=f'block_size is {block_size}, and must be even and at least 2'):
        FourierBurstAccumulation(block_size=block_size)


def test_black_frames_and_bf16_are_restored():
    net = FourierBurstAccumulation()
    assert torch.equal(net(torch.zeros(1, 5, 3, 8, 8)), torch.zeros(1, 3, 8, 8))
    x = torch.rand(1, 5, 3, 16, 16)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(net(x), net.float()(x)) and net(x).dtype == torch.float32
    torch.testing.assert_close(net(x.bfloat16()), net(x.bfloat16().float()).bfloat16())
