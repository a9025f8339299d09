"""DeepDeblur: a single frame restored from coarse to fine.

"Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring" (Nah et al., CVPR 2017). Three networks of
40 layers of 5x5 each restore a quarter of the size, half of it and all of it; each gets the blurry frame of its size
and, enlarged, what the one before restored. Enlarging is done by sub-pixel convolution, as in the authors' later code,
which also takes the mean of the range, 0.5, off the input and puts it back.

The published loss is the sum of one for each size: ``forward(x, sizes=True)`` returns all three, and ``pyramid``
makes the truths they are compared with (``train.multi_scale``). Ours: any frame size, by repeating the last row and
column up to multiples of 4; without ``gaussian``, halving is the mean of 2x2 pixels.
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
_AUTHORS_PEAK = 255  # of the pictures that their public weights are for
_AUTHORS_KEY = re.compile(
    r'(?P<kind>body|conv_end)_models\.(?P<size>[012])\.(?:body|uppath)\.(?P<layer>\d+)\.(?P<rest>.+)'
)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, _KERNEL, padding=_KERNEL // 2)


class ResidualBlock(nn.Module):
    """conv-ReLU-conv with an identity skip, and nothing behind it."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_conv(num_feat, num_feat), nn.ReLU(inplace=True), _conv(num_feat, num_feat))

    def forward(self, x: Tensor) -> Tensor:
        """``(b, num_feat, h, w)`` to the same shape."""
        return x + self.convs(x)


def _scale(in_channels: int, out_channels: int, num_feat: int, num_block: int) -> nn.Sequential:
    """The network of one size."""
    blocks = (ResidualBlock(num_feat) for _ in range(num_block))
    return nn.Sequential(_conv(in_channels, num_feat), *blocks, _conv(num_feat, out_channels))


def _enlarge(channels: int) -> nn.Sequential:
    """Doubles height and width."""
    return nn.Sequential(_conv(channels, channels * 4), nn.PixelShuffle(2))


class GaussianHalving(nn.Module):
    """Halves height and width as the authors' later code does, with scikit-image's ``pyramid_gaussian``.

    A Gaussian of standard deviation 2/3, cut off after 3 pixels, then the mean of 2x2 pixels: one convolution of 8x8
    with stride 2. Frames are continued by repeating their borders (there they are mirrored).
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
        num_frame: Frames in a window, odd; 1 reads no frames in vain.
        num_feat: Width of the layers.
        num_block: Residual blocks for each size.
        gaussian: Whether frames are smoothed before they are halved, as the authors do; their weights need it.

    Raises:
        ValueError: If there is no width.
    """

    size_multiple = 4  # what frames are padded to inside; tiles must begin at multiples of it

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
        if num_feat < 1:
            raise ValueError(f'num_feat must be at least 1, and is {num_feat}')
        self.num_frame = num_frame
        # 2 pixels for each 5x5 layer at its size: those of the three networks, then the enlarging and halving ones
        self.receptive_radius = 2 * 7 * (2 + 2 * num_block) + 2 * (2 + 4) + 3 * (1 + 2) * gaussian
        self.halve = GaussianHalving() if gaussian else nn.AvgPool2d(2)
        self.coarse = _scale(num_in_ch, num_out_ch, num_feat, num_block)
        self.middle = _scale(num_in_ch + num_out_ch, num_out_ch, num_feat, num_block)
        self.fine = _scale(num_in_ch + num_out_ch, num_out_ch, num_feat, num_block)
        self.coarse_up = _enlarge(num_out_ch)
        self.middle_up = _enlarge(num_out_ch)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """Frames in the three sizes that are restored, the full one first.

        Args:
            frames: ``(b, c, h, w)``, h and w multiples of 4.
        """
        half = self.halve(frames)
        return [frames, half, self.halve(half)]

    def forward(self, x: Tensor, sizes: bool = False) -> Tensor | list[Tensor]:
        """Restores the middle frame of each window.

        Args:
            x: ``(b, t, num_in_ch, h, w)`` in [0, 1], any h and w.
            sizes: Whether half and quarter size are returned too, for the loss in training.

        Returns:
            ``(b, num_out_ch, h, w)``; with ``sizes`` a list of it and the two smaller ones, whose height and width
            are 1/2 and 1/4 of the next multiples of 4.
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
    """Makes ours of the weights of the authors' later code (SeungjunNah/DeepDeblur-PyTorch: GOPRO_L1, REDS_L1).

    They fit ``DeepDeblur(gaussian=True)``. Theirs are for frames in [0, 255], ours for [0, 1], so that the first
    layer of each size has to be multiplied, and what adds to a frame (the last layers, the biases of enlarging)
    divided by 255; everything between stays as it is.

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
