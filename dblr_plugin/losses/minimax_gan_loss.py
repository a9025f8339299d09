"""The paper's adversarial loss, which BasicSR's ``GANLoss`` lacks (its ``vanilla`` is the non-saturating one)."""

from __future__ import annotations

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['MinimaxGANLoss']


@LOSS_REGISTRY.register()
class MinimaxGANLoss(nn.Module):
    """Minimax GAN loss on logits; called like BasicSR's ``GANLoss``.

    Generator: ``mean(log(1 - sigmoid(z)))``, computed as ``-softplus(z)`` so that it stays finite. Discriminator:
    the usual binary cross-entropy.

    Args:
        loss_weight: Weight of the generator's loss (alpha in the paper); the discriminator's is always 1.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """Scores what the discriminator says.

        Args:
            logits: The discriminator's output, any shape; positive for real.
            target_is_real: Whether the scored frames are real. Only the discriminator's loss depends on it.
            is_disc: Whether the loss is the discriminator's.

        Returns:
            Scalar loss. The generator's is negative, and falls as the discriminator is deceived.
        """
        if is_disc:
            return F.softplus(-logits if target_is_real else logits).mean()
        return -F.softplus(logits).mean() * self.loss_weight
