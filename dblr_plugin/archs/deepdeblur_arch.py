"""DeepDeblur: restores a single frame from coarse to fine.

"Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring" (Nah et al., CVPR 2017). Three networks of
40 layers of 5x5 each work at quarter, half and full size; each gets the blurry frame at its size and the upscaled
output of the previous network. Upscaling is by sub-pixel convolution, as in the authors' later code, which also
subtracts the mean of the range, 0.5, from the input and adds it back.

The published loss is the sum over the three sizes: ``forward(x, sizes=True)`` returns all of them, and ``pyramid``
makes the ground truth at each size (``train.multi_scale``). Our additions: any frame size, by repeating the last row
and column up to multiples of 4; without ``gaussian``, downscaling averages 2x2 pixels.
"""

from __future__ import annotations

import re

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['DeepDeblur', 'rename_authors_keys']

_KERNEL = 5
_MEAN = 0.5

_SIZES = 'fine', 'middle', 'coarse'
_AUTHORS_PEAK = 255  # peak value of frames for their public weights
_AUTHORS_KEY = re.compile(
    r'(?P<kind>body|conv_end)_models\.(?P<size>[012])\.(?:body|uppath)\.(?P<layer>\d+)\.(?P<rest>.+)'
)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, _KERNEL, padding=_KERNEL // 2)


class ResidualBlock(nn.Module):
    """conv-ReLU-conv with an identity skip, and nothing after it."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_conv(num_feat, num_feat), nn.ReLU(inplace=True), _conv(num_feat, num_feat))

    def forward(self, x: Tensor) -> Tensor:
        """``(b, num_feat, h, w)`` to the same shape."""
        return x + self.convs(x)


def _scale(in_channels: int, out_channels: int, num_feat: int, num_block: int) -> nn.Sequential:
    """Builds the network for one size."""
    blocks = (ResidualBlock(num_feat) for _ in range(num_block))
    return nn.Sequential(_conv(in_channels, num_feat), *blocks, _conv(num_feat, out_channels))


def _enlarge(channels: int) -> nn.Sequential:
    """Builds a layer that doubles height and width."""
    return nn.Sequential(_conv(channels, channels * 4), nn.PixelShuffle(2))


class GaussianHalving(nn.Module):
    """Halves height and width like the authors' later code, which uses scikit-image's ``pyramid_gaussian``.

    A Gaussian of standard deviation 2/3, truncated at 3 pixels, then the mean of 2x2 pixels: a single 8x8 convolution
    with stride 2. Frames are padded by repeating their borders (the authors mirror them).
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        gaussian = torch.exp(-0.5 * (torch.arange(-3, 4) / (2 / 3)).square())
        taps = (F.pad(gaussian, (0, 1)) + F.pad(gaussian, (1, 0))) / (2 * gaussian.sum())
        self.register_buffer('kernel', torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, c, h, w)``, h and w even, to ``(b, c, h / 2, w / 2)``."""
        channels = x.shape[1]
        padded = F.pad(x, (3, 3, 3, 3), mode='replicate')
        return F.conv2d(padded, self.kernel.expand(channels, 1, 8, 8), stride=2, groups=channels)


@ARCH_REGISTRY.register()
class DeepDeblur(nn.Module):
    """Restores the middle frame of a window from that frame alone.

    Args:
        num_in_ch: Channels of a frame: 3 for RGB (the paper), 1 for Y.
        num_out_ch: Channels of the restored frame.
        num_frame: Frames in a window, odd; 1 reads no unused frames.
        num_feat: Width of the layers.
        num_block: Residual blocks per size.
        gaussian: Smooths frames before downscaling, as the authors do; their weights need it.

    Raises:
        ValueError: If ``num_feat`` is below 1 or ``num_block`` below 0.
    """

    size_multiple = 4  # frames are padded to it internally; tiles must start at multiples of it

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_frame: int = 1,
        num_feat: int = 64,
        num_block: int = 19,
        gaussian: bool = False,
    ) -> None:
        super().__init__()
        if num_feat < 1 or num_block < 0:
            raise ValueError(f'num_feat must be at least 1, num_block at least 0; they are {num_feat} and {num_block}')
        self.num_frame = num_frame
        # 2 pixels per 5x5 layer at its size: first the three networks, then the upscaling and downscaling layers
        self.receptive_radius = 2 * 7 * (2 + 2 * num_block) + 2 * (2 + 4) + 3 * (1 + 2) * gaussian
        self.halve = GaussianHalving() if gaussian else nn.AvgPool2d(2)
        self.coarse = _scale(num_in_ch, num_out_ch, num_feat, num_block)
        self.middle = _scale(num_in_ch + num_out_ch, num_out_ch, num_feat, num_block)
        self.fine = _scale(num_in_ch + num_out_ch, num_out_ch, num_feat, num_block)
        self.coarse_up = _enlarge(num_out_ch)
        self.middle_up = _enlarge(num_out_ch)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """Returns frames ``(b, c, h, w)``, h and w multiples of 4, at the three sizes, full size first."""
        half = self.halve(frames)
        return [frames, half, self.halve(half)]

    def forward(self, x: Tensor, sizes: bool = False) -> Tensor | list[Tensor]:
        """``(b, t, num_in_ch, h, w)`` in [0, 1], any h and w, to ``(b, num_out_ch, h, w)``.

        With ``sizes``, for the training loss, returns a list of it and the two smaller sizes, at 1/2 and 1/4 of h and w
        rounded up to multiples of 4.
        """
        h, w = x.shape[-2:]
        padding = 0, -w % self.size_multiple, 0, -h % self.size_multiple
        blurry = F.pad(x[:, x.shape[1] // 2], padding, mode='replicate') - _MEAN
        full, half, quarter = self.pyramid(blurry)
        coarse = self.coarse(quarter)
        middle = self.middle(torch.cat([half, self.coarse_up(coarse)], dim=1))
        fine = self.fine(torch.cat([full, self.middle_up(middle)], dim=1))[..., :h, :w]
        return [size + _MEAN for size in (fine, middle, coarse)] if sizes else fine + _MEAN


def rename_authors_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts weights of the authors' later code (SeungjunNah/DeepDeblur-PyTorch: GOPRO_L1, REDS_L1) to ours.

    The result fits ``DeepDeblur(gaussian=True)``. Theirs are for frames in [0, 255], ours for [0, 1]: the weight of
    each size's first layer is multiplied by 255, the last layers and the upscaling biases, which add to a frame, are
    divided by 255, and the layers in between are unchanged.

    Args:
        state: Weights whose keys start with ``body_models`` (0: full size) and ``conv_end_models``.
    """
    found = {key: match for key in state if (match := _AUTHORS_KEY.fullmatch(key))}
    last = max(int(match['layer']) for match in found.values())
    renamed = {}
    for key, value in state.items():
        match = found.get(key)
        if match is None:
            renamed[key] = value
            continue
        size, layer, rest = _SIZES[int(match['size'])], int(match['layer']), match['rest']
        enlarges = match['kind'] == 'conv_end'
        if not enlarges and layer == 0 and rest == 'weight':
            value = value * _AUTHORS_PEAK
        elif layer == last or (enlarges and rest == 'bias'):
            value = value / _AUTHORS_PEAK
        renamed[f'{size}{"_up" if enlarges else ""}.{layer}.{rest.replace("body.", "convs.")}'] = value
    return renamed
