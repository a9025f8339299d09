"""One optimisation step of one network: loss scaling, clipping, and skipping of non-finite steps."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from dblr_plugin.training import interrupts
from dblr_plugin.training.optimizers import copy_all

__all__ = [
    'Step', 'StepResult', 'end_program', 'mean_over_processes', 'of_all_processes', 'share_gradients', 'suspects',
]  # fmt: skip

Part = TypeVar('Part')


@dataclass(frozen=True)
class StepResult:
    """The result of a step.

    Attributes:
        losses: Mean of each loss over the micro-batches, detached scalars.
        grad_norm: 2-norm of all gradients before clipping, a scalar; not finite if they overflowed.
        skipped: Whether the weights were left unchanged because a loss or gradient was not finite on any process. Not
            set for the overflows by which fp16's loss scale finds its value.
        loss_is_finite: Whether this process's own losses were finite.
    """

    losses: dict[str, Tensor]
    grad_norm: Tensor
    skipped: bool
    loss_is_finite: bool


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
        self._buffers = [*net.buffers()]  # cached, as listing them walks through all modules
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=loss_scaling)
        self._kept: list[Tensor] = []

    def begin(self) -> None:
        """Clears gradients and saves BatchNorm's statistics; call it before the network's first forward pass."""
        self.optimizer.zero_grad()
        if not self._kept:
            self._kept = [buffer.clone() for buffer in self._buffers]
        else:
            copy_all(self._kept, self._buffers)

    def run(self, micro_batches: Sequence[Part], losses_of: Callable[[Part], dict[str, Tensor]]) -> StepResult:
        """Accumulates the gradients of the micro-batches and updates the weights.

        Args:
            micro_batches: Equal parts of the batch.
            losses_of: Runs the network on one micro-batch and returns its scalar losses.
        """
        totals: dict[str, Tensor] = {}
        for number, part in enumerate(micro_batches, 1):
            with self._synchronised(number == len(micro_batches)):
                losses = {name: loss / len(micro_batches) for name, loss in losses_of(part).items()}
                self.scaler.scale(reduce(operator.add, losses.values())).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach()
        return self._update(totals)

    def _synchronised(self, last: bool) -> AbstractContextManager:
        """Synchronises gradients between processes once per batch, with its last micro-batch."""
        if last or not isinstance(self.net, DistributedDataParallel):
            return nullcontext()
        return self.net.no_sync()

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
        """Restores BatchNorm's statistics as of :meth:`begin`."""
        copy_all(self._buffers, self._kept)


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
    """Returns the samples of the processes with a non-finite loss; of all processes if only a gradient was non-finite.

    Args:
        keys: Names of this process's samples.
        results: The results of its steps.
    """
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


def end_program() -> None:
    """Ends the program on all processes after a signal; the exit code is the shell's for that signal."""
    if dist.is_initialized():
        dist.barrier()  # torchrun kills the others once one has ended, and the first may still be saving
        dist.destroy_process_group()
    raise SystemExit(128 + (interrupts.received() or 15))
