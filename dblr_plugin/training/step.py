"""Optimisers, learning rates and one optimisation step of one network: loss scaling, clipping, skipping, processes.

EDVR's recipe needs a separate learning rate for ``dcn`` (deformable convolution), and trains ``fusion`` (TSA) alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dblr_plugin.errors import DBLRError
from dblr_plugin.training.objectives import total_loss

__all__ = [
    'PlateauLR', 'Step', 'StepResult', 'build_optimizer', 'mean_over_processes', 'move_average', 'multiply_rates',
    'of_all_processes', 'share_gradients', 'suspects', 'train_alone', 'trainable',
]  # fmt: skip

Part = TypeVar('Part')


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

    The optimiser is new, with all parameters in one group and no scheduler. ``factors`` maps a part of a parameter's
    name to its factor; the first match applies.
    """
    rest = optimizer.param_groups[0]
    left = trainable(net)
    for part, factor in factors.items():
        chosen = [left.pop(name) for name in list(left) if part in name]
        rest['params'] = list(left.values())
        optimizer.add_param_group({'params': chosen, 'lr': rest['lr'] * factor})


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that a network has not frozen itself, as it may those of a pretrained part."""
    return {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}


def train_alone(parameters: Mapping[str, nn.Parameter], iterations: Mapping[str, int], iteration: int) -> None:
    """Freezes all others while some parameters are trained alone. Depends only on the iteration, so runs can resume.

    ``parameters`` are the :func:`trainable` ones of the network as it was built. ``iterations`` maps a part of a
    parameter's name to the iteration from which everything is trained, like BasicSR's ``tsa_iter``; parts whose periods
    overlap are trained together. The first ``iteration`` is 1.
    """
    parts = [part for part, first_of_all in iterations.items() if iteration < first_of_all]
    for name, parameter in parameters.items():
        parameter.requires_grad_(not parts or any(part in name for part in parts))


@torch.no_grad()
def move_average(averaged: nn.Module, net: nn.Module, decay: float) -> None:
    """Updates an EMA network from the trained one; buffers (BatchNorm's statistics) are copied."""
    torch._foreach_lerp_([*averaged.parameters()], [*net.parameters()], 1 - decay)
    buffers = [*net.buffers()]
    if _shapes(averaged.buffers()) != _shapes(buffers):
        _renew_buffers(averaged, net)
    copy_all(averaged.buffers(), buffers)


def _shapes(buffers: Iterable[Tensor]) -> list[torch.Size]:
    return [buffer.shape for buffer in buffers]


def _renew_buffers(averaged: nn.Module, net: nn.Module) -> None:
    """Replaces buffers that the other network's forward has made or resized, such as a cache that was None at first."""
    for name, module in net.named_modules():
        for key, buffer in module.named_buffers(recurse=False):
            setattr(averaged.get_submodule(name), key, buffer.clone())


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


@dataclass(frozen=True)
class StepResult:
    """The result of a step."""

    losses: dict[str, Tensor]  # mean of each over the micro-batches, detached scalars
    grad_norm: Tensor  # 2-norm of all gradients before clipping, a scalar; not finite if they overflowed
    #: Whether the weights were left unchanged because a loss or gradient was not finite on any process. Not set for the
    #: overflows by which fp16's loss scale finds its value.
    skipped: bool
    loss_is_finite: bool  # of this process's own losses


class Step:
    """Backward pass, loss scaling, clipping and update; protects weights and BatchNorm statistics from bad numbers.

    Args:
        net: The network, bare or wrapped for distributed training.
        optimizer: Its optimiser.
        loss_scaling: Whether losses are scaled, as fp16 gradients require.
        clip_grad_norm: Gradients with a larger norm are scaled down to it; None disables clipping.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        loss_scaling: bool = False,
        clip_grad_norm: float | None = None,
    ) -> None:
        self.net = net
        self.optimizer = optimizer
        self.clip_grad_norm = clip_grad_norm
        self.parameters = [p for group in optimizer.param_groups for p in group['params']]
        self.device = self.parameters[0].device
        # where the buffers are, as finding them walks through all modules, and a network may replace their tensors
        self._places = [(module._buffers, name) for module in net.modules() for name in module._buffers]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=loss_scaling)
        self._kept: list[Tensor] = []
        self._built: set[int] | None = {id(p) for p in net.parameters()}  # None once checked

    def begin(self) -> None:
        """Clears gradients and saves BatchNorm's statistics; call it before the network's first forward pass."""
        self.optimizer.zero_grad()
        buffers = self._buffers()
        if _shapes(self._kept) == _shapes(buffers):
            copy_all(self._kept, buffers)
        else:
            self._kept = [buffer.clone() for buffer in buffers]

    def run(self, micro_batches: Sequence[Part], losses_of: Callable[[Part], dict[str, Tensor]]) -> StepResult:
        """Accumulates the gradients of the micro-batches and updates the weights.

        Args:
            micro_batches: Equal parts of the batch.
            losses_of: Runs the network on one micro-batch and returns its scalar losses.

        Raises:
            DBLRError: If the losses do not depend on the weights, or the network's first pass made new ones.
        """
        totals: dict[str, Tensor] = {}
        for number, part in enumerate(micro_batches, 1):
            # processes exchange gradients once per batch, with its last micro-batch
            is_last = number == len(micro_batches)
            with nullcontext() if is_last or not isinstance(self.net, DistributedDataParallel) else self.net.no_sync():
                losses = losses_of(part)
                self._check_parameters()
                total = total_loss(losses)
                if not total.requires_grad:
                    raise DBLRError(
                        f'{", ".join(losses)}: torch cannot tell how the weights affect it: the network or loss uses '
                        'detach(), item(), torch.no_grad() or NumPy; avoid that'
                    )
                self.scaler.scale(total / len(micro_batches)).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach() / len(micro_batches)
        return self._update(totals)

    def _check_parameters(self) -> None:
        """Rejects weights that the first forward pass made: the optimiser does not know them."""
        if self._built is not None:
            late = [name for name, p in self.net.named_parameters() if id(p) not in self._built]
            self._built = None
            if late:
                raise DBLRError(f'{late[0]}: forward made it, so it would not be trained; make layers in __init__')

    def _update(self, losses: dict[str, Tensor]) -> StepResult:
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        own_losses = torch.isfinite(torch.stack(list(losses.values()))).all()
        losses_finite, all_finite = self._everywhere(own_losses, own_losses & torch.isfinite(norm))
        skipped = False
        if all_finite:
            if self.clip_grad_norm is not None:
                clip_grads_with_norm_(self.parameters, self.clip_grad_norm, norm)
            self.scaler.step(self.optimizer)
        elif not losses_finite or self._scale_is_not_to_blame():
            skipped = True
            self.restore_buffers()
        self.scaler.update()
        # if all losses are finite, reading this process's own flag would only cost another GPU synchronisation
        return StepResult(losses, norm, skipped, losses_finite or bool(own_losses))

    def _scale_is_not_to_blame(self) -> bool:
        """fp16 starts with a scale that is too large and halves it at each overflow; below 1 it cannot be the cause."""
        return not self.scaler.is_enabled() or self.scaler.get_scale() < 1

    def _everywhere(self, *flags: Tensor) -> list[bool]:
        """Returns whether each flag is set on all processes, which must act alike."""
        agreed = torch.stack(flags).to(torch.uint8)
        if dist.is_initialized():
            dist.all_reduce(agreed, dist.ReduceOp.MIN)
        return [bool(flag) for flag in agreed.tolist()]

    def restore_buffers(self) -> None:
        """Restores BatchNorm's statistics as of :meth:`begin`, unless the network made or resized a buffer since."""
        buffers = self._buffers()
        if _shapes(self._kept) == _shapes(buffers):
            copy_all(buffers, self._kept)

    def _buffers(self) -> list[Tensor]:
        present = (buffers.get(name) for buffers, name in self._places)
        return [buffer for buffer in present if buffer is not None]


def share_gradients(net: nn.Module, find_unused_parameters: bool) -> nn.Module:
    """Wraps a network, on its device, for distributed training; without trainable parameters it stays bare."""
    if not any(p.requires_grad for p in net.parameters()):
        return net
    device_ids = [torch.cuda.current_device()] if next(net.parameters()).is_cuda else None
    return DistributedDataParallel(net, device_ids=device_ids, find_unused_parameters=find_unused_parameters)


def mean_over_processes(values: dict[str, Tensor], device: torch.device) -> dict[str, float]:
    """Averages scalars over all processes, and returns them on each; BasicSR returns them only on the first."""
    stacked = torch.stack([value.detach().to(device, torch.float32) for value in values.values()])
    if dist.is_initialized():
        dist.all_reduce(stacked)
        stacked /= dist.get_world_size()
    return dict(zip(values, stacked.tolist(), strict=True))


def suspects(keys: list[str], results: Sequence[StepResult]) -> list[str]:
    """Returns the samples of the processes with a non-finite loss; of all if only a gradient was non-finite."""
    everyone = of_all_processes((keys, all(result.loss_is_finite for result in results)))
    guilty = [keys for keys, finite in everyone if not finite] or [keys for keys, _ in everyone]
    return [key for keys in guilty for key in keys]


def of_all_processes(value: Any) -> list[Any]:
    """Returns the values of all processes, in the order of their ranks, on each of them."""
    values = [value]
    if dist.is_initialized():
        values *= dist.get_world_size()
        dist.all_gather_object(values, value)
    return values
