"""Networks that a user could run instead, built from their published architectures for timing only: without weights."""

from __future__ import annotations

import torch
from basicsr.archs.basicvsr_arch import BasicVSR
from torch import Tensor, nn


class QuarterBasicVSR(BasicVSR):
    """Maps a clip of RGB frames ``(b, t, 3, h, w)``, with sides multiples of 4, to the same (Chan et al., CVPR 2021).

    BasicVSR upscales by four. Here it gets frames downscaled by four, as its successor does for deblurring (arXiv
    2204.05308), and its output is added to the frames as a residual. 6.3 million parameters with 30 blocks.
    """

    def __init__(self) -> None:
        super().__init__(num_feat=64, num_block=30)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        small = nn.functional.avg_pool3d(frames, (1, 4, 4))
        enlarged = nn.functional.interpolate(small.flatten(0, 1), scale_factor=4, mode='bilinear')
        return frames + super().forward(small) - enlarged.view_as(frames)


class _LayerNorm(nn.Module):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Gate(nn.Module):
    """Multiplies one half of the channels by the other."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=1)
        return one * other


class _Attention(nn.Module):
    """Scales each channel by a linear function of all channel means."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(num_feat, num_feat, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


class _NAFBlock(nn.Module):
    def __init__(self, num_feat: int) -> None:
        super().__init__()
        wide = 2 * num_feat
        self.spatial = nn.Sequential(
            _LayerNorm(num_feat),
            nn.Conv2d(num_feat, wide, 1),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            _Gate(),
            _Attention(num_feat),
            nn.Conv2d(num_feat, num_feat, 1),
        )
        self.channels = nn.Sequential(
            _LayerNorm(num_feat), nn.Conv2d(num_feat, wide, 1), _Gate(), nn.Conv2d(num_feat, num_feat, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.spatial(x)
        return x + self.channels(x)


def _naf_blocks(num_feat: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_NAFBlock(num_feat) for _ in range(count)))


class NAFNet(nn.Module):
    """Maps an RGB frame ``(b, 3, h, w)``, with sides multiples of 16, to the same (Chen et al., ECCV 2022).

    The GoPro configuration: 1, 1, 1 and 28 encoder blocks, one in the middle, one decoder block at each scale; 17.1
    million parameters and 16 billion multiply-adds for 256x256 with ``num_feat`` 32 (its table 6).
    """

    def __init__(self, num_feat: int = 32) -> None:
        super().__init__()
        widths = [num_feat * 2**scale for scale in range(4)]
        self.first, self.last = nn.Conv2d(3, num_feat, 3, padding=1), nn.Conv2d(num_feat, 3, 3, padding=1)
        self.encoders = nn.ModuleList(map(_naf_blocks, widths, (1, 1, 1, 28)))
        self.downs = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths)
        self.middle = _naf_blocks(2 * widths[-1], 1)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2)) for width in widths[::-1]
        )
        self.decoders = nn.ModuleList(_naf_blocks(width, 1) for width in widths[::-1])

    def forward(self, frame: Tensor) -> Tensor:
        """See the class."""
        x, kept = self.first(frame), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            kept.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + kept.pop())
        return frame + self.last(x)


class _ResBlock(nn.Module):
    def __init__(self, num_feat: int) -> None:
        super().__init__()
        one, other = (nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(2))
        self.layers = nn.Sequential(one, nn.ReLU(), other)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class DMPHN(nn.Module):
    """Maps an RGB frame ``(b, 3, h, w)``, with sides multiples of 16, to the same: DMPHN(1-2-4-8).

    Zhang et al., CVPR 2019. Four levels process the whole frame, its halves, quarters and eighths, each with an encoder
    and a decoder of 32, 64 and 128 features, with two residual blocks at each of the three scales.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(_encoder() for _ in range(4))
        self.decoders = nn.ModuleList(_decoder() for _ in range(4))

    def forward(self, frame: Tensor) -> Tensor:
        """See the class."""
        restored, features = torch.zeros_like(frame), None
        for level in (3, 2, 1, 0):
            rows, columns = 2 ** ((level + 1) // 2), 2 ** (level // 2)
            parts = [part.chunk(columns, dim=3) for part in (frame + restored).chunk(rows, dim=2)]
            found = torch.cat([torch.cat([self.encoders[level](part) for part in row], dim=3) for row in parts], dim=2)
            features = found if features is None else found + features
            pieces = [part.chunk(columns, dim=3) for part in features.chunk(rows, dim=2)]
            restored = torch.cat([torch.cat([self.decoders[level](p) for p in row], dim=3) for row in pieces], dim=2)
        return restored


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in ((3, 32), (32, 64), (64, 128)):
        stride = 1 if before == 3 else 2
        layers += [nn.Conv2d(before, width, 3, stride=stride, padding=1), _ResBlock(width), _ResBlock(width)]
    return nn.Sequential(*layers)


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (128, 64):
        up = nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1)
        layers += [_ResBlock(width), _ResBlock(width), up]
    return nn.Sequential(*layers, _ResBlock(32), _ResBlock(32), nn.Conv2d(32, 3, 3, padding=1))
