"""DeepDeblur: a single frame restored from coarse to fine.

"Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring" (Nah et al., CVPR 2017). Three networks of
40 layers of 5x5 each restore a quarter of the size, half of it and all of it; each gets the blurry frame of its size
and, enlarged, what the one before restored. Enlarging is done by sub-pixel convolution, as in the authors' later code,
which also takes the mean of the range, 0.5, off the input and puts it back.

Ours: halving is the mean of 2x2 pixels; any frame size, by repeating the last row and column up to multiples of 4.
The published loss is summed over the sizes; here the network returns the frame of full size alone, as all others do,
so the loss reaches the coarse sizes only through it.
"""

from __future__ import annotations

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['DeepDeblur']

_KERNEL = 5
_MEAN = 0.5


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


@ARCH_REGISTRY.register()
class DeepDeblur(nn.Module):
    """Restores the middle frame of a window from that frame alone.

    Args:
        num_in_ch: Channels of a frame: 3 for RGB (the paper), 1 for Y.
        num_out_ch: Channels of the restored frame.
        num_frame: Frames in a window, odd; 1 reads no frames in vain.
        num_feat: Width of the layers.
        num_block: Residual blocks for each size.

    Raises:
        ValueError: If there is no width.
    """

    size_multiple = 4  # what frames are padded to inside; tiles must begin at multiples of it

    def __init__(
        self, num_in_ch: int = 3, num_out_ch: int = 3, num_frame: int = 1, num_feat: int = 64, num_block: int = 19
    ) -> None:
        super().__init__()
        if num_feat < 1:
            raise ValueError(f'num_feat must be at least 1, and is {num_feat}')
        self.num_frame = num_frame
        self.coarse = _scale(num_in_ch, num_out_ch, num_feat, num_block)
        self.middle = _scale(num_in_ch + num_out_ch, num_out_ch, num_feat, num_block)
        self.fine = _scale(num_in_ch + num_out_ch, num_out_ch, num_feat, num_block)
        self.coarse_up = _enlarge(num_out_ch)
        self.middle_up = _enlarge(num_out_ch)

    def forward(self, x: Tensor) -> Tensor:
        """Restores the middle frame of each window.

        Args:
            x: ``(b, t, num_in_ch, h, w)`` in [0, 1], any h and w.

        Returns:
            ``(b, num_out_ch, h, w)``.
        """
        h, w = x.shape[-2:]
        padding = 0, -w % self.size_multiple, 0, -h % self.size_multiple
        full = F.pad(x[:, x.shape[1] // 2], padding, mode='replicate') - _MEAN
        half = F.avg_pool2d(full, 2)
        quarter = F.avg_pool2d(half, 2)
        restored = self.coarse(quarter)
        restored = self.middle(torch.cat([half, self.coarse_up(restored)], dim=1))
        restored = self.fine(torch.cat([full, self.middle_up(restored)], dim=1))
        return restored[..., :h, :w] + _MEAN
