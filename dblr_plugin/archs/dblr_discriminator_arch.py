"""The discriminator of DBLRGAN, which distinguishes sharp frames from restored ones.

The paper calls it a binary classifier. A public re-implementation shows the widths and the fully connected layers, but
not the strides, pooling or input size. Our choices: the last convolution of each of the four stages has stride 2,
global average pooling allows any patch size, and the output is one logit (equivalent to a two-way softmax).
"""

from __future__ import annotations

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dblr_plugin.archs.dblrnet_arch import draw_weights

__all__ = ['DBLRDiscriminator']


def _stage(in_channels: int, out_channels: int, num_conv: int, negative_slope: float) -> list[nn.Module]:
    """Builds ``num_conv`` conv-BN-activation layers, the last with stride 2."""
    layers: list[nn.Module] = []
    for index in range(num_conv):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, stride=2 if index == num_conv - 1 else 1, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(negative_slope, inplace=True),
        ]
        in_channels = out_channels
    return layers


@ARCH_REGISTRY.register()
class DBLRDiscriminator(nn.Module):
    """Classifies patches; the sigmoid of its logit is the probability of being real.

    Args:
        num_in_ch: Channels of a patch: 1 for Y, 3 for RGB.
        num_feat: Width of the first stage; the stages have 1, 2, 4 and 8 times this width, and 2, 3, 4 and 5 layers.
        num_fc: Width of the two hidden fully connected layers.
        negative_slope: 0 is ReLU; 0.2 is common in GANs.
        init_std: Standard deviation of normally distributed initial weights (0.01 is published); None for PyTorch's
            default initialisation.

    Raises:
        ValueError: If a width is below 1.
    """

    min_size = 16

    def __init__(
        self,
        num_in_ch: int = 1,
        num_feat: int = 64,
        num_fc: int = 4096,
        negative_slope: float = 0.0,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if num_feat < 1 or num_fc < 1:
            raise ValueError(f'num_feat and num_fc must be at least 1, and are {num_feat} and {num_fc}')
        widths = [num_in_ch, num_feat, num_feat * 2, num_feat * 4, num_feat * 8]
        layers: list[nn.Module] = []
        for stage, num_conv in enumerate((2, 3, 4, 5)):
            layers += _stage(widths[stage], widths[stage + 1], num_conv, negative_slope)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(widths[-1], num_fc),
            nn.LeakyReLU(negative_slope, inplace=True),
            nn.Linear(num_fc, num_fc),
            nn.LeakyReLU(negative_slope, inplace=True),
            nn.Linear(num_fc, 1),
        )
        if init_std is not None:
            draw_weights(self, init_std)

    def forward(self, x: Tensor) -> Tensor:
        """Patches ``(b, num_in_ch, h, w)`` to logits ``(b, 1)``, positive for real.

        Raises:
            ValueError: If the patches are smaller than 16x16, as they are halved four times.
        """
        if min(x.shape[-2:]) < self.min_size:
            raise ValueError(
                f'DBLRDiscriminator halves its input four times and needs patches of at least '
                f'{self.min_size}x{self.min_size}, got {x.shape[-2]}x{x.shape[-1]}: raise gt_size'
            )
        return self.classifier(self.pool(self.features(x)).flatten(1))
