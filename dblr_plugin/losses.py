"""Losses that BasicSR lacks: the paper's adversarial loss (BasicSR's ``vanilla`` is non-saturating), and PSNR."""

from __future__ import annotations

import math

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['MinimaxGANLoss', 'PSNRLoss']


@LOSS_REGISTRY.register()
class MinimaxGANLoss(nn.Module):
    """Minimax GAN loss on logits, with the interface of BasicSR's ``GANLoss``.

    Generator: ``mean(log(1 - sigmoid(z)))``, computed as ``-softplus(z)`` to stay finite. Discriminator: the usual
    binary cross-entropy.

    Args:
        loss_weight: Weight of the generator's loss (alpha in the paper); the discriminator's is always 1.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """Computes the loss for the discriminator's output.

        Args:
            logits: The discriminator's output, any shape; positive for real.
            target_is_real: Whether the scored frames are real. Only the discriminator's loss depends on it.
            is_disc: Whether the loss is the discriminator's.

        Returns:
            Scalar loss. The generator's is negative, and decreases the more the discriminator is fooled.
        """
        if is_disc:
            return F.softplus(-logits if target_is_real else logits).mean()
        return -F.softplus(logits).mean() * self.loss_weight


@LOSS_REGISTRY.register()
class PSNRLoss(nn.Module):
    """Negative mean PSNR over a batch's samples, in dB, as used by Chen et al. (NAFNet, 2022).

    A mean squared error is dominated by the samples with the largest errors. Here a gain of one decibel counts the same
    for every sample, so a network learns to leave sharp frames unchanged.

    Args:
        loss_weight: Weight of this loss.
        eps: Added to each sample's mean squared error: samples near -10 log10(eps) dB or better count less.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-8) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor, **kwargs: Tensor) -> Tensor:
        """Compares restored frames with the ground truth.

        Args:
            pred: Restored frames, ``(b, c, h, w)``, peak 1.
            target: Their ground truth, of the same shape.
            kwargs: Arguments that BasicSR's losses accept (``weight``); unused.

        Returns:
            Scalar loss, negative if the frames are similar.
        """
        error = (pred - target).square().flatten(1).mean(1)
        return self.loss_weight * (10 / math.log(10)) * (error + self.eps).log().mean()
