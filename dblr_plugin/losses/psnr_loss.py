"""The negative PSNR as a loss, which BasicSR lacks."""

from __future__ import annotations

import math

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

__all__ = ['PSNRLoss']


@LOSS_REGISTRY.register()
class PSNRLoss(nn.Module):
    """Minus the mean PSNR of a batch's samples, in dB; as used by Chen et al. (NAFNet, 2022).

    A mean squared error is ruled by the samples that are far from their truth. Here a gain of one decibel counts the
    same for all, so that a network learns to leave alone what is sharp already.

    Args:
        loss_weight: Weight of this loss.
        eps: Added to each sample's mean squared error: samples near -10 log10(eps) dB and better count less.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-8) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor, **kwargs: Tensor) -> Tensor:
        """Compares restored frames with the truth.

        Args:
            pred: Restored frames ``(b, c, h, w)``, peak 1.
            target: The truth, of the same shape.
            kwargs: What BasicSR's losses may be given (``weight``); not used.

        Returns:
            Scalar loss: negative where frames resemble each other.
        """
        error = (pred - target).square().flatten(1).mean(1)
        return self.loss_weight * (10 / math.log(10)) * (error + self.eps).log().mean()
