"""Optimisers, learning rates and training times for parts of a network by parameter name; the averaged network.

The recipe of EDVR needs rates and times of their own for ``dcn`` (deformable convolution) and ``fusion`` (TSA).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ['build_optimizer', 'move_average', 'multiply_rates', 'train_alone']


def build_optimizer(name: str, params: Iterable[Tensor], **arguments: Any) -> torch.optim.Optimizer:
    """Makes an optimiser of ``torch.optim``; BasicSR 1.4.2 knows Adam only.

    Raises:
        ValueError, RuntimeError: What the class says to its arguments.
    """
    if 'betas' in arguments:  # torch refuses [0, 0.9], as 0 is no float
        arguments['betas'] = tuple(map(float, arguments['betas']))
    return getattr(torch.optim, name)(params, **arguments)


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
    for average, weight in zip(averaged.parameters(), net.parameters(), strict=True):
        average.lerp_(weight, 1 - decay)
    for buffer, current in zip(averaged.buffers(), net.buffers(), strict=True):
        buffer.copy_(current)
