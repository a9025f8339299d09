"""Optimisers; learning rates and freezing of parts of a network by parameter name; the published schedule.

EDVR's recipe needs a separate learning rate for ``dcn`` (deformable convolution), and trains ``fusion`` (TSA) alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

__all__ = ['PlateauLR', 'build_optimizer', 'copy_all', 'move_average', 'multiply_rates', 'train_alone']

_FUSED = ('Adam', 'AdamW', 'SGD')


def build_optimizer(name: str, params: Iterable[Tensor], **arguments: Any) -> torch.optim.Optimizer:
    """Builds an optimiser of ``torch.optim``; BasicSR 1.4.2 supports only Adam.

    On a GPU, Adam, AdamW and SGD update all parameters in one kernel (``fused``) unless the arguments say otherwise.

    Raises:
        ValueError, RuntimeError: If the class rejects its arguments.
    """
    if 'betas' in arguments:  # torch rejects [0, 0.9], as 0 is not a float
        arguments['betas'] = tuple(map(float, arguments['betas']))
    parameters = list(params)
    if name in _FUSED and not {'fused', 'foreach'} & set(arguments) and all(p.is_cuda for p in parameters):
        arguments['fused'] = True
    return getattr(torch.optim, name)(parameters, **arguments)


def multiply_rates(optimizer: Optimizer, net: nn.Module, factors: Mapping[str, float]) -> None:
    """Moves parameters into separate groups, with learning rates that are multiples of the base rate.

    Args:
        optimizer: A new optimiser with all the network's parameters in one group, before schedulers are built.
        net: The network.
        factors: Part of a parameter's name -> its factor; the first match applies.
    """
    rest = optimizer.param_groups[0]
    left = dict(net.named_parameters())
    for part, factor in factors.items():
        chosen = [left.pop(name) for name in list(left) if part in name]
        rest['params'] = list(left.values())
        optimizer.add_param_group({'params': chosen, 'lr': rest['lr'] * factor})


def train_alone(net: nn.Module, iterations: Mapping[str, int], iteration: int) -> None:
    """Freezes all other parameters while some are trained alone. Depends only on the iteration, so runs can resume.

    Args:
        net: The network.
        iterations: Part of a parameter's name -> the iteration from which everything is trained, like BasicSR's
            ``tsa_iter``; parts whose periods overlap are trained together.
        iteration: The current iteration, from 1.
    """
    parts = [part for part, first_of_all in iterations.items() if iteration < first_of_all]
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not parts or any(part in name for part in parts))


@torch.no_grad()
def move_average(averaged: nn.Module, net: nn.Module, decay: float) -> None:
    """Updates an EMA network from the trained one; buffers (BatchNorm's statistics) are copied."""
    torch._foreach_lerp_([*averaged.parameters()], [*net.parameters()], 1 - decay)
    copy_all(averaged.buffers(), net.buffers())


@torch.no_grad()
def copy_all(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    """Copies tensors in one call per dtype, as each call on a GPU costs as much as a small layer."""
    pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        some = pairs.setdefault(target.dtype, ([], []))
        some[0].append(target)
        some[1].append(source)
    for some in pairs.values():
        torch._foreach_copy_(*some)


class PlateauLR(ReduceLROnPlateau):
    """``ReduceLROnPlateau`` on the training loss averaged over many iterations, stepped like BasicSR's schedulers.

    The loss of a single batch is too noisy. It is averaged over ``window`` iterations, and when ``patience`` windows in
    a row bring no new best mean, the learning rate is multiplied by ``factor``. Iterations without such a loss, in
    which D is trained alone, are not recorded and do not count towards a window.

    Args:
        optimizer: The optimiser whose learning rate it sets.
        factor: Factor for the learning rate: 0.1 as published.
        window: Number of recorded iterations to average the loss over.
        patience: Number of windows without a better mean before the rate drops.
        threshold: Required improvement, relative to the best mean.
        min_lr: Lower bound of the learning rate.

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
        # torch drops the rate after patience + 1 bad means
        super().__init__(optimizer, factor=factor, patience=patience - 1, threshold=threshold, min_lr=min_lr)
        self.window = window
        #: As in the option file, for comparison with a resumed state's
        self.arguments = {
            'factor': factor, 'window': window, 'patience': patience, 'threshold': threshold, 'min_lr': min_lr,
        }  # fmt: skip
        self.total = 0.0
        self.count = 0

    def _is_better(self, a: float, best: float) -> bool:
        # torch's own has the wrong sign for negative losses such as PSNRLoss
        return a < best and (math.isinf(best) or best - a > self.threshold * abs(best))

    is_better = _is_better  # its name in older torch

    def record(self, loss: float) -> None:
        """Records the loss of one iteration, the same on all processes; non-finite losses are ignored."""
        if math.isfinite(loss):
            self.total += loss
            self.count += 1

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Closes the window if it is full; BasicSR calls this before each iteration except the first."""
        if self.count >= self.window:
            mean, self.total, self.count = self.total / self.count, 0.0, 0
            super().step(mean)
