"""Fourier burst accumulation: of each frequency, mostly from the frame in which it is strongest.

"Burst Deblurring: Removing Camera Shake Through Fourier Burst Accumulation" (Delbracio and Sapiro, CVPR 2015). Camera
shake blurs each frame of a burst differently and strengthens no frequency, so a mean weighted by the frames' spectra
is sharper than each of them. There is nothing to train. The paper's final sharpening is left out: it is not part of
the method, and any frame gains by it.
"""

from __future__ import annotations

import math

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

__all__ = ['FourierBurstAccumulation']


@ARCH_REGISTRY.register()
class FourierBurstAccumulation(nn.Module):
    """Merges the frames of a window: ``u = F^-1(sum_i w_i F(v_i))``, ``w_i = |F(v_i)|^p / sum_j |F(v_j)|^p``.

    The magnitudes are means over the channels, smoothed by a Gaussian of ``min(h, w) / kernel_size`` frequencies. It
    computes in float32 also where mixed precision is on, which has too few digits for 11th powers.

    Args:
        num_in_ch: Channels of one frame.
        num_frame: Frames in a window.
        p: 0 is the mean of the frames, infinity would take each frequency from one frame.
        kernel_size: The largest blur that is expected, in pixels: a small one's spectrum is smooth.
        flow: The frames come aligned to the middle one, as the method needs; see :class:`DBN`. False is for tripods.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_frame: int = 5,
        p: float = 11.0,
        kernel_size: float = 50.0,
        flow: bool = True,
    ) -> None:
        super().__init__()
        self.num_in_ch = num_in_ch
        self.num_frame = num_frame
        self.p = p
        self.kernel_size = kernel_size
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        """``(b, t, c, h, w)`` to ``(b, c, h, w)``, any t, h and w."""
        frames = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            spectra = torch.fft.fft2(frames)
            merged = torch.fft.ifft2((self._weights(spectra) * spectra).sum(dim=1)).real
        return merged.to(x.dtype)

    def _weights(self, spectra: Tensor) -> Tensor:
        """``(b, t, c, h, w)`` to ``(b, t, 1, h, w)``, of sum 1 over t."""
        magnitudes = _smoothed(spectra.abs().mean(dim=2, keepdim=True), min(spectra.shape[-2:]) / self.kernel_size)
        # not zero, so that black frames have weights; divided by the strongest, or 11th powers would leave float32
        magnitudes = magnitudes.clamp(min=torch.finfo(magnitudes.dtype).tiny)
        powers = (magnitudes / magnitudes.amax(dim=1, keepdim=True)) ** self.p
        return powers / powers.sum(dim=1, keepdim=True)


def _smoothed(magnitudes: Tensor, sigma: float) -> Tensor:
    """Convolves ``(..., h, w)``, periodic as spectra are, with a Gaussian of ``sigma`` pixels."""
    h, w = magnitudes.shape[-2:]
    y = torch.fft.fftfreq(h, device=magnitudes.device, dtype=magnitudes.dtype)[:, None]
    x = torch.fft.fftfreq(w, device=magnitudes.device, dtype=magnitudes.dtype)
    gaussian = torch.exp(-2 * (math.pi * sigma) ** 2 * (y**2 + x**2))
    return torch.fft.ifft2(torch.fft.fft2(magnitudes) * gaussian).real
