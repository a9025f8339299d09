"""DBLRNet and its discriminator in alternative readings of the sources; ``imports`` for scripts/sensitivity.py."""

from __future__ import annotations

from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dblr_plugin.archs import DBLRDiscriminator, DBLRNet


@ARCH_REGISTRY.register()
class FullRangeDBLRNet(DBLRNet):
    """DBLRNet with layers working on Y from 0 to 1, as in JPEG and OpenCV, instead of BasicSR's 16/255 to 235/255.

    One is an affine function of the other, so data and loss stay the same as for all other networks.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(b, t, 1, h, w)`` to ``(b, 1, h, w)``, both Y in BasicSR's range."""
        return super().forward((x * 255 - 16) / 219) * (219 / 255) + 16 / 255


@ARCH_REGISTRY.register()
class MaxPoolDiscriminator(DBLRDiscriminator):
    """Discriminator whose stages end in max pooling, as in VGG, instead of a convolution with stride 2."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        layers = list(self.features)
        for index, layer in reversed(list(enumerate(layers))):
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                layer.stride = (1, 1)
                layers.insert(index + 3, nn.MaxPool2d(2))  # after BatchNorm and the activation
        self.features = nn.Sequential(*layers)


@ARCH_REGISTRY.register()
class FlattenDiscriminator(DBLRDiscriminator):
    """Discriminator that flattens the last stage instead of averaging positions; for patches of 33 to 48 pixels."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool = nn.Identity()
        hidden = self.classifier[0]
        self.classifier[0] = nn.Linear(hidden.in_features * 3 * 3, hidden.out_features)
