"""MultiScaleDBLRNet: DBLRNet's design at several scales, with a fraction of its operations.

As in DBLRNet (dblrnet_arch.py), two 3D layers merge five unaligned frames, residual blocks restore, and the network
predicts the difference from the blurry frame. The differences: a space-to-depth rearrangement of the input lets the
first layers run at half the resolution, and most blocks run at coarser scales, where the receptive field of a few
layers spans a long blur. There is no BatchNorm: a window's result depends on that window alone.
"""

from __future__ import annotations

import itertools

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.dblrnet_arch import TimeStackedConv
from dblr_plugin.archs.traits import restored_index

__all__ = ['MultiScaleDBLRNet']


class Block(nn.Module):
    """conv-ReLU-conv with an identity skip."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, num_feat, h, w)`` to the same shape."""
        return x + self.conv2(F.relu(self.conv1(x)))


def blocks(num_feat: int, count: int) -> nn.Sequential:
    """Builds ``count`` residual blocks of one width."""
    return nn.Sequential(*(Block(num_feat) for _ in range(count)))


def _receptive_radius(num_block: tuple[int, ...]) -> int:
    """Returns the halo, in pixels, of a block aligned to the coarsest scale, traced from output to input."""
    *above, lowest = enumerate(num_block)
    radius = 2  # the last layer, at half the resolution
    for scale, count in above:
        radius = (radius + 2 * count * 2 ** (scale + 1) + 2 ** (scale + 2) - 1) // 2 ** (scale + 2) * 2 ** (scale + 2)
    radius += 2 * lowest[1] * 2 ** (lowest[0] + 1)
    return radius + sum(2 * count * 2 ** (scale + 1) for scale, count in above) + 2 * 2


@ARCH_REGISTRY.register()
class MultiScaleDBLRNet(nn.Module):
    """Restores one frame of a window, working at scales of 1/2, 1/4, 1/8 and so on.

    Args:
        num_in_ch: Channels of one input frame: 1 for Y, 3 for RGB.
        num_out_ch: Channels of the restored frame; must equal ``num_in_ch``, as the blurry frame is added.
        num_frame: Frames in a window, at least 3.
        num_feat: Width at each scale, from half the resolution down.
        num_block: Residual blocks per scale in the encoder, with as many in the decoder; at the last scale, in total.
        causal: Restores the last frame of a window instead of the middle one.

    Raises:
        ValueError: If an argument is out of range or arguments contradict each other.
    """

    num_maps = 16

    def __init__(
        self,
        num_in_ch: int = 1,
        num_out_ch: int = 1,
        num_frame: int = 5,
        num_feat: tuple[int, ...] = (24, 48, 96),
        num_block: tuple[int, ...] = (1, 2, 3),
        causal: bool = False,
    ) -> None:
        super().__init__()
        if num_frame < 3:
            raise ValueError(f'MultiScaleDBLRNet needs windows of at least 3 frames, num_frame is {num_frame}')
        if len(num_feat) != len(num_block) or not num_feat or min(num_feat) < 1:
            raise ValueError(f'num_feat and num_block must name the same scales, and are {num_feat} and {num_block}')
        if min(num_block) < 0:
            raise ValueError(f'num_block must be at least 0 at each scale, and is {num_block}')
        if num_in_ch != num_out_ch:
            raise ValueError(f'num_in_ch ({num_in_ch}) must be equal to num_out_ch ({num_out_ch})')
        self.num_frame = num_frame
        self.size_multiple = 2 ** len(num_feat)  # frames are padded to it internally; tiles must start at multiples
        self.restored = restored_index(num_frame, causal)
        self.receptive_radius = _receptive_radius(num_block)
        *above, lowest = num_feat
        self.conv_l1 = TimeStackedConv(4 * num_in_ch, self.num_maps, 3)
        self.conv_l2 = TimeStackedConv(self.num_maps, num_feat[0], num_frame - 2)
        self.encoders = nn.ModuleList(blocks(*scale) for scale in zip(above, num_block[:-1], strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in itertools.pairwise(num_feat))
        self.middle = blocks(lowest, num_block[-1])
        self.ups = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in itertools.pairwise(num_feat))
        self.decoders = nn.ModuleList(blocks(*scale) for scale in zip(above, num_block[:-1], strict=True))
        self.last = nn.Conv2d(num_feat[0], 4 * num_out_ch, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, num_frame, num_in_ch, h, w)``, any h and w, to ``(b, num_out_ch, h, w)``.

        Raises:
            ValueError: If the windows do not have ``num_frame`` frames.
        """
        if x.dim() != 5 or x.shape[1] != self.num_frame:
            raise ValueError(f'MultiScaleDBLRNet expects (b, {self.num_frame}, c, h, w), got {tuple(x.shape)}')
        b, t, _, h, w = x.shape
        blurry = x[:, self.restored]
        frames = F.pad(x.flatten(0, 1), (0, -w % self.size_multiple, 0, -h % self.size_multiple), mode='replicate')
        frames = F.pixel_unshuffle(frames, 2)
        maps = F.relu(self.conv_l1(frames.view(b, t, *frames.shape[1:]).transpose(1, 2)))
        feat = F.relu(self.conv_l2(maps).squeeze(2))  # OpenVINO is slower with ReLU before squeeze
        skips = []
        for encode, down in zip(self.encoders, self.downs, strict=True):
            feat = encode(feat)
            skips.append(feat)
            feat = down(feat)
        feat = self.middle(feat)
        for skip, up, decode in reversed(list(zip(skips, self.ups, self.decoders, strict=True))):
            feat = decode(skip + F.pixel_shuffle(up(feat), 2))
        return blurry + F.pixel_shuffle(self.last(feat), 2)[..., :h, :w]
