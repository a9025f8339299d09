"""The optimisers that option files can name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ['build_optimizer']


def build_optimizer(name: str, params: Iterable[Tensor], **arguments: Any) -> torch.optim.Optimizer:
    """Makes an optimiser of ``torch.optim``; BasicSR 1.4.2 knows Adam only.

    Raises:
        ValueError, RuntimeError: What the class says to its arguments.
    """
    if 'betas' in arguments:  # torch refuses [0, 0.9], as 0 is no float
        arguments['betas'] = tuple(map(float, arguments['betas']))
    return getattr(torch.optim, name)(params, **arguments)
