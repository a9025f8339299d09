"""Fourier burst accumulation: a weighted mean of frames that favours, at each frequency, the strongest frame.

"Burst Deblurring: Removing Camera Shake Through Fourier Burst Accumulation" (Delbracio and Sapiro, CVPR 2015), block by
block as for video ("Hand-held Video Deblurring via Efficient Fourier Aggregation", arXiv 1509.05251). Camera shake
blurs each frame differently and strengthens no frequency, so a mean weighted by the frames' spectra is sharper than
each of them. There is nothing to train. Blocks, windows, noise floor and their values are those of fbaLib (O. Wang, an
author of DBN); it merges frames that are aligned already. What is hidden in a frame is the middle frame's, as the
second paper has it: data sets and video inference see to that (:func:`dblr_plugin.data.flow.align`). Ours: blocks no
larger than the frame, and weights smoothed across the spectrum's ends, where it is periodic. The CVPR paper's final
sharpening is left out: it is not part of the method, and any frame gains by it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['FourierBurstAccumulation']


@ARCH_REGISTRY.register()
class FourierBurstAccumulation(nn.Module):
    """Merges the frames of a window: ``u = F^-1(sum_i w_i F(v_i))``, ``w_i = |F(v_i)|^p / sum_j |F(v_j)|^p``.

    It does so in square blocks that overlap by half and are joined with Hann windows; the frame is mirrored at its
    bottom and right to hold whole blocks. The magnitudes are means over the channels, smoothed by a Gaussian of
    ``block / kernel_size`` frequencies, and at least those of noise. It computes in float32 also where mixed precision
    is on, which has too few digits for 11th powers.

    Args:
        num_in_ch: Channels of one frame.
        num_frame: Frames in a window.
        p: 0 is the mean of the frames, infinity would take each frequency from one frame.
        kernel_size: The largest blur that is expected, in pixels: a small one's spectrum is smooth.
        block_size: Side of a block in pixels, even; in frames that are lower or narrower it is their shorter side.
        noise: Standard deviation of the frames' noise, of [0, 1]. What is weaker is averaged.
        flow: How the frames come aligned to the middle one: see :class:`NetworkTraits`. False is for tripods.
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
        height, width = (int(length) for length in x.shape[-2:])  # a tracer makes tensors of them
        shorter = min(height, width)
        block = min(self.block_size, shorter + shorter % 2)
        with torch.autocast(x.device.type, enabled=False):
            blocks = _blocks(frames, block)
            spectra = torch.fft.rfft2(blocks)
            merged = torch.fft.irfft2((self._weights(spectra, block) * spectra).sum(dim=1))
            restored = _joined(merged, height, width)
        return restored.to(x.dtype)

    def _weights(self, spectra: Tensor, block: int) -> Tensor:
        """``(b, t, c, ...)`` to ``(b, t, 1, ...)``, of sum 1 over t."""
        magnitudes = _smoothed(spectra.abs().mean(dim=2, keepdim=True), block / self.kernel_size)
        # the mean magnitude of white noise; not zero, so that black frames have weights
        floor = max(self.noise * block * math.sqrt(math.pi) / 2, torch.finfo(magnitudes.dtype).tiny)
        magnitudes = magnitudes.clamp(min=floor)
        # divided by the strongest, or 11th powers would leave float32
        powers = (magnitudes / magnitudes.amax(dim=1, keepdim=True)) ** self.p
        return powers / powers.sum(dim=1, keepdim=True)


def _count(length: int, block: int) -> int:
    """How many blocks, each half a block after the one before, cover so many pixels."""
    return max(math.ceil((length - block) / (block // 2)), 0) + 1


def _mirrored(length: int, total: int, device: torch.device) -> Tensor:
    """Indices of ``total`` pixels, of which those beyond ``length`` go back, and forth again."""
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
    """``(b, c, rows, columns, block, block)`` to ``(b, c, height, width)``: the mean by Hann windows."""
    channels, rows, columns, block = (int(length) for length in blocks.shape[1:5])
    down, across = (_windows(count, block).to(blocks) for count in (rows, columns))
    weighted = blocks * down[:, None, :, None] * across[:, None, :]
    stacked = weighted.permute(0, 1, 4, 5, 2, 3).reshape(-1, channels * block * block, rows * columns)
    whole = tuple((count + 1) * block // 2 for count in (rows, columns))
    return F.fold(stacked, whole, block, stride=block // 2)[..., :height, :width]


def _windows(count: int, block: int) -> Tensor:
    """Hann windows of ``count`` blocks in a row, float64 ``(count, block)``; they sum to 1 at each pixel.

    The first half of the first and the last half of the last, where no other block reaches, is 1.
    """
    half = block // 2
    rising = torch.sin(math.pi * (torch.arange(half, dtype=torch.float64) + 0.5) / block).square()
    one = torch.ones_like(rising)
    firsts = torch.stack([one, *[rising] * (count - 1)])
    lasts = torch.stack([*[1 - rising] * (count - 1), one])
    return torch.cat([firsts, lasts], dim=1)


def _smoothed(magnitudes: Tensor, sigma: float) -> Tensor:
    """Convolves the magnitudes ``(..., n, n / 2 + 1)`` of a real picture's spectrum with a Gaussian.

    The Gaussian's ``sigma`` is in frequencies. The spectrum is periodic and even: its transform is real, and there the
    Gaussian is a factor.
    """
    n = magnitudes.shape[-2]
    places = torch.fft.fftfreq(n, device=magnitudes.device, dtype=magnitudes.dtype)
    gaussian = torch.exp(-2 * (math.pi * sigma * places) ** 2)
    return torch.fft.rfft2(torch.fft.irfft2(magnitudes) * gaussian[:, None] * gaussian).real
