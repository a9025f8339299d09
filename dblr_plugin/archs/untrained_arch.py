"""Methods without training: the blurry input, and Fourier burst accumulation.

The latter is a weighted mean of frames that favours, at each frequency, the strongest: "Burst Deblurring: Removing
Camera Shake Through Fourier Burst Accumulation" (Delbracio and Sapiro, CVPR 2015), block by block as for video
("Hand-held Video Deblurring via Efficient Fourier Aggregation", arXiv 1509.05251). Camera shake blurs each frame
differently and amplifies no frequency, so a mean weighted by the frames' spectra is sharper than any of them. Blocks,
windows, noise floor and their values follow fbaLib (O. Wang, an author of DBN), which merges frames that are already
aligned. As in the second paper, occluded pixels are taken from the middle frame, by data sets and video inference
(:func:`dblr_plugin.data.flow.align`). Our changes: blocks are no larger than the frame, and weights are smoothed
periodically, across the spectrum's ends. The CVPR paper's final sharpening is left out: it is not part of the method
and would improve any frame.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.traits import restored_index

__all__ = ['BlurryInput', 'FourierBurstAccumulation', 'MiddleFrame']


@ARCH_REGISTRY.register()
class BlurryInput(nn.Module):
    """Returns the frame to restore, unchanged: the blurry input, evaluated like any method.

    Args:
        num_in_ch: Channels of one frame.
        causal: Returns the last frame of a window instead of the middle one.
    """

    receptive_radius = 0

    def __init__(self, num_in_ch: int = 3, causal: bool = False) -> None:
        super().__init__()
        self.num_in_ch = num_in_ch
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """``(b, t, c, h, w)`` to ``(b, c, h, w)``."""
        return x[:, restored_index(x.shape[1], self.causal)]


@ARCH_REGISTRY.register()
class MiddleFrame(BlurryInput):
    """The old name of :class:`BlurryInput`, for option files of version 0.1."""


@ARCH_REGISTRY.register()
class FourierBurstAccumulation(nn.Module):
    """Merges the frames of a window: ``u = F^-1(sum_i w_i F(v_i))``, ``w_i = |F(v_i)|^p / sum_j |F(v_j)|^p``.

    Works in square blocks that overlap by half and are blended with Hann windows; the frame is mirrored at the bottom
    and right to fill whole blocks. The magnitudes are averaged over the channels, smoothed by a Gaussian with a sigma
    of ``block / kernel_size`` frequencies, and clamped to at least the noise level. Computes in at least float32 even
    under mixed precision, which has too few digits for 11th powers.

    Args:
        num_in_ch: Channels of one frame.
        num_frame: Frames in a window.
        p: Exponent of the weights: 0 is the mean of the frames, infinity would take each frequency from one frame.
        kernel_size: Largest expected blur, in pixels; the smaller the blur, the smoother its spectrum.
        block_size: Side of a block in pixels, even; limited to the frame's shorter side.
        noise: Standard deviation of the frames' noise, for pixels in [0, 1]. Weaker frequencies are averaged.
        flow: How the frames are aligned to the middle one, see :class:`NetworkTraits`. False is for tripods.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_frame: int = 5,
        p: float = 11.0,
        kernel_size: float = 30.0,
        block_size: int = 512,
        noise: float = 0.03,
        flow: bool | Literal['consistent'] = 'consistent',
    ) -> None:
        super().__init__()
        if block_size < 2 or block_size % 2:
            raise ValueError(f'block_size is {block_size}, and must be even and at least 2')
        if kernel_size <= 0 or p < 0 or noise < 0:
            raise ValueError(
                f'kernel_size must be above 0, p and noise at least 0; they are {kernel_size}, {p} and {noise}'
            )
        self.num_in_ch = num_in_ch
        self.num_frame = num_frame
        self.p = p
        self.kernel_size = kernel_size
        self.block_size = block_size
        self.noise = noise
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        """``(b, t, c, h, w)`` in [0, 1] to ``(b, c, h, w)``, any t, h and w."""
        frames = x.to(torch.promote_types(x.dtype, torch.float32))
        height, width = (int(length) for length in x.shape[-2:])  # tensors when traced
        shorter = min(height, width)
        block = min(self.block_size, shorter + shorter % 2)
        with torch.autocast(x.device.type, enabled=False):
            blocks = _blocks(frames, block)
            spectra = torch.fft.rfft2(blocks)
            merged = torch.fft.irfft2((self._weights(spectra, block) * spectra).sum(dim=1))
            restored = _joined(merged, height, width)
        return restored.to(x.dtype)

    def _weights(self, spectra: Tensor, block: int) -> Tensor:
        """``(b, t, c, ...)`` to ``(b, t, 1, ...)``, summing to 1 over t."""
        magnitudes = _smoothed(spectra.abs().mean(dim=2, keepdim=True), block / self.kernel_size)
        # mean magnitude of white noise; above zero, so that black frames have weights
        floor = max(self.noise * block * math.sqrt(math.pi) / 2, torch.finfo(magnitudes.dtype).tiny)
        magnitudes = magnitudes.clamp(min=floor)
        # normalised by the strongest, as 11th powers could overflow float32
        powers = (magnitudes / magnitudes.amax(dim=1, keepdim=True)) ** self.p
        return powers / powers.sum(dim=1, keepdim=True)


def _count(length: int, block: int) -> int:
    """Returns how many blocks, each offset by half a block, cover ``length`` pixels."""
    return max(math.ceil((length - block) / (block // 2)), 0) + 1


def _mirrored(length: int, total: int, device: torch.device) -> Tensor:
    """Returns the indices of ``total`` pixels, mirrored back and forth beyond ``length``."""
    period = max(2 * (length - 1), 1)
    places = torch.arange(total, device=device) % period
    return torch.where(places < length, places, period - places)


def _blocks(frames: Tensor, block: int) -> Tensor:
    """``(..., h, w)`` to ``(..., rows, columns, block, block)``."""
    for axis in (-2, -1):
        length = int(frames.shape[axis])
        total = (_count(length, block) + 1) * block // 2
        frames = frames.index_select(axis, _mirrored(length, total, frames.device))
    return frames.unfold(-2, block, block // 2).unfold(-2, block, block // 2)


def _joined(blocks: Tensor, height: int, width: int) -> Tensor:
    """``(b, c, rows, columns, block, block)`` to ``(b, c, height, width)``, blended with Hann windows."""
    channels, rows, columns, block = (int(length) for length in blocks.shape[1:5])
    down, across = (_windows(count, block).to(blocks) for count in (rows, columns))
    weighted = blocks * down[:, None, :, None] * across[:, None, :]
    stacked = weighted.permute(0, 1, 4, 5, 2, 3).reshape(-1, channels * block * block, rows * columns)
    whole = tuple((count + 1) * block // 2 for count in (rows, columns))
    return F.fold(stacked, whole, block, stride=block // 2)[..., :height, :width]


def _windows(count: int, block: int) -> Tensor:
    """Returns Hann windows for ``count`` blocks in a row, float64 ``(count, block)``; they sum to 1 at each pixel.

    The first half of the first and the last half of the last window, where no other block overlaps, are 1.
    """
    half = block // 2
    rising = torch.sin(math.pi * (torch.arange(half, dtype=torch.float64) + 0.5) / block).square()
    one = torch.ones_like(rising)
    firsts = torch.stack([one, *[rising] * (count - 1)])
    lasts = torch.stack([*[1 - rising] * (count - 1), one])
    return torch.cat([firsts, lasts], dim=1)


def _smoothed(magnitudes: Tensor, sigma: float) -> Tensor:
    """Convolves the magnitudes ``(..., n, n / 2 + 1)`` of a real picture's spectrum with a Gaussian.

    ``sigma`` is in frequencies. The spectrum is periodic and even, so its transform is real, and the convolution is a
    multiplication there.
    """
    n = magnitudes.shape[-2]
    places = torch.fft.fftfreq(n, device=magnitudes.device, dtype=magnitudes.dtype)
    gaussian = torch.exp(-2 * (math.pi * sigma * places) ** 2)
    return torch.fft.rfft2(torch.fft.irfft2(magnitudes) * gaussian[:, None] * gaussian).real
