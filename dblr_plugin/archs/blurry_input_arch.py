"""Returns the blurry input unchanged: the baseline that every method is compared with."""

from __future__ import annotations

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from dblr_plugin.archs.traits import restored_index

__all__ = ['BlurryInput', 'MiddleFrame']


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
