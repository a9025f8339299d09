"""Optimisers, learning rates and training times for parts of a network by parameter name; the published schedule.

The recipe of EDVR needs rates and times of their own for ``dcn`` (deformable convolution) and ``fusion`` (TSA).
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
    """Makes an optimiser of ``torch.optim``; BasicSR 1.4.2 knows Adam only.

    On a GPU, Adam, AdamW and SGD update all parameters in one kernel (``fused``) unless the arguments say otherwise.

    Raises:
        ValueError, RuntimeError: What the class says to its arguments.
    """
    if 'betas' in arguments:  # torch refuses [0, 0.9], as 0 is no float
        arguments['betas'] = tuple(map(float, arguments['betas']))
    parameters = list(params)
    if name in _FUSED and not {'fused', 'foreach'} & set(arguments) and all(p.is_cuda for p in parameters):
        arguments['fused'] = True
    return getattr(torch.optim, name)(parameters, **arguments)


def multiply_rates(optimizer: Optimizer, net: nn.Module, factors: Mapping[str, float]) -> None:
    """Moves parameters into groups of their own, whose learning rates are multiples of the others'.

    Args:
        optimizer: The new optimiser of all the network's parameters, in one group; schedulers come later.
        net: The network.
        factors: Part of a parameter's name -> its factor; the first that fits counts.
    """
    rest = optimizer.param_groups[0]
    left = dict(net.named_parameters())
    for part, factor in factors.items():
        chosen = [left.pop(name) for name in list(left) if part in name]
        rest['params'] = list(left.values())
        optimizer.add_param_group({'params': chosen, 'lr': rest['lr'] * factor})


def train_alone(net: nn.Module, iterations: Mapping[str, int], iteration: int) -> None:
    """Freezes all but some parameters while it is their time. It depends on the iteration alone, so that runs resume.

    Args:
        net: The network.
        iterations: Part of a parameter's name -> the iteration from which everything is trained, as BasicSR's
            ``tsa_iter``; where several are trained alone, all of them are.
        iteration: The present one, from 1.
    """
    parts = [part for part, first_of_all in iterations.items() if iteration < first_of_all]
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not parts or any(part in name for part in parts))


@torch.no_grad()
def move_average(averaged: nn.Module, net: nn.Module, decay: float) -> None:
    """Moves an averaged network towards the trained one; buffers (BatchNorm's statistics) are copied."""
    torch._foreach_lerp_([*averaged.parameters()], [*net.parameters()], 1 - decay)
    copy_all(averaged.buffers(), net.buffers())


@torch.no_grad()
def copy_all(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    """Copies tensors in one call for each type: on a GPU each call costs as much as a small layer."""
    pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        some = pairs.setdefault(target.dtype, ([], []))
        some[0].append(target)
        some[1].append(source)
    for some in pairs.values():
        torch._foreach_copy_(*some)


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
