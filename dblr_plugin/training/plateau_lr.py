"""The published schedule: divide the learning rate when the loss stops falling."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

__all__ = ['PlateauLR']


class PlateauLR(ReduceLROnPlateau):
    """``ReduceLROnPlateau`` on the mean training loss of so many iterations; stepped like BasicSR's schedulers.

    The loss of one batch says little. It is averaged over ``window`` iterations, and when ``patience`` windows in a
    row bring no new best mean, the rate is multiplied by ``factor``. Iterations without such a loss, in which D is
    trained alone, are not recorded and so make no window.

    Args:
        optimizer: The optimiser whose rate it sets.
        factor: What the rate is multiplied with: 0.1 as published.
        window: Recorded iterations, whose losses make one mean.
        patience: Windows without a better mean before the rate falls.
        threshold: How much better, relative to the best mean, a mean must be.
        min_lr: The rate does not fall below it.

    Raises:
        ValueError: If ``factor`` is not below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        window: int = 5000,
        patience: int = 3,
        threshold: float = 1e-3,
        min_lr: float = 0.0,
    ) -> None:
        for group in optimizer.param_groups:
            group.setdefault('initial_lr', group['lr'])  # BasicSR's warm-up starts from it
        # torch's patience counts the mean that gives in as well
        super().__init__(optimizer, factor=factor, patience=patience - 1, threshold=threshold, min_lr=min_lr)
        self.window = window
        self.total = 0.0
        self.count = 0

    def _is_better(self, a: float, best: float) -> bool:
        # torch's own takes the wrong side for negative losses such as PSNRLoss
        return a < best and (math.isinf(best) or best - a > self.threshold * abs(best))

    is_better = _is_better  # its name in older torch

    def record(self, loss: float) -> None:
        """Takes the loss of one iteration, the same on all processes; one that is not finite does not count."""
        if math.isfinite(loss):
            self.total += loss
            self.count += 1

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Closes a window that is full; BasicSR calls it before each iteration but the first."""
        if self.count >= self.window:
            mean, self.total, self.count = self.total / self.count, 0.0, 0
            super().step(mean)
