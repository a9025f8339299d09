"""Measures the peak memory of a job in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

__all__ = ['METHOD', 'peak_memory']

METHOD = (
    "a fresh process's peak for two frames, weights and compiling included: on GPUs what PyTorch's allocator held, on "
    'CPUs the growth of resident memory'
)


def peak_memory(make: Callable[[], Callable[[], object]], device: torch.device) -> int | None:
    """The most memory that a fresh process takes to make something and to run it twice.

    Args:
        make: Returns what is run; it must be picklable.
        device: Where that runs.

    Returns:
        Bytes; None where the system does not tell, or killed the process.
    """
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        try:
            return pool.submit(_peak, make, device, torch.get_num_threads()).result()
        except BrokenProcessPool:
            return None


def _peak(make: Callable[[], Callable[[], object]], device: torch.device, threads: int) -> int | None:
    torch.set_num_threads(threads)
    before = _high_water()
    run = make()
    for _ in range(2):
        run()
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    after = _high_water()
    return None if before is None or after is None else after - before


def _high_water() -> int | None:
    """The most bytes that this process has held; getrusage would count those of the process it was forked from."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM')), None)
