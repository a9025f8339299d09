"""What the processes of a run do together: share gradients, means and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dblr_plugin.training import interrupts
from dblr_plugin.training.step import StepResult

__all__ = ['end_program', 'mean_over_processes', 'of_first_process', 'share_gradients', 'suspects']


def share_gradients(net: nn.Module, find_unused_parameters: bool) -> nn.Module:
    """Wraps a network on its device so that all processes train the same one; without parameters it stays bare."""
    if not any(p.requires_grad for p in net.parameters()):
        return net
    device_ids = [torch.cuda.current_device()] if next(net.parameters()).is_cuda else None
    return DistributedDataParallel(net, device_ids=device_ids, find_unused_parameters=find_unused_parameters)


def mean_over_processes(values: dict[str, Tensor], device: torch.device) -> dict[str, float]:
    """The means of scalars, the same on every process; BasicSR gives them to the first alone."""
    stacked = torch.stack([value.detach().to(device, torch.float32) for value in values.values()])
    if dist.is_initialized():
        dist.all_reduce(stacked)
        stacked /= dist.get_world_size()
    return dict(zip(values, stacked.tolist(), strict=True))


def suspects(keys: list[str], results: Sequence[StepResult]) -> list[str]:
    """The samples of the processes whose loss was not finite; of all, if it was only a gradient.

    Args:
        keys: Names of this process's samples.
        results: What its steps came to.
    """
    own = keys, all(result.loss_is_finite for result in results)
    everyone: list[Any] = [own]
    if dist.is_initialized():
        everyone *= dist.get_world_size()
        dist.all_gather_object(everyone, own)
    guilty = [keys for keys, finite in everyone if not finite] or [keys for keys, _ in everyone]
    return [key for keys in guilty for key in keys]


def of_first_process(value: Any) -> Any:
    """The first process's value, on all."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values, 0)
    return values[0]


def end_program() -> None:
    """Ends the program as a signal asked for, on all processes; the exit code is the shell's for that signal."""
    if dist.is_initialized():
        dist.barrier()  # torchrun kills the others when one has ended, and the first may still be saving
        dist.destroy_process_group()
    raise SystemExit(128 + (interrupts.received() or 15))
