"""The machine: processor, memory for loader workers, disk, compiler."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dblr_plugin.doctor.findings import Finding, fault, note, ok

__all__ = ['cores', 'find_compiler', 'find_processor', 'find_space']

_MIB, _GIB = 2**20, 2**30
_SHARED_MEMORY = Path('/dev/shm')


def cores() -> int:
    """The cores this process may use: of a container or a batch job often fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    try:
        quota, period = Path('/sys/fs/cgroup/cpu.max').read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such control, or 'max'
        return allowed


def find_processor() -> Iterator[Finding]:
    """Cores and threads, and whether bf16 is quick here."""
    import torch

    usable, threads = cores(), torch.get_num_threads()
    variable = os.environ.get('OMP_NUM_THREADS')
    text = f'{usable} of {os.cpu_count()} cores, {threads} threads (OMP_NUM_THREADS {variable or "not set"})'
    if threads > usable:
        yield note(text, 'more threads than cores wait for each other:', f'export OMP_NUM_THREADS={usable}')
    else:
        yield ok(text)
    flags = _processor_flags()
    fast = [flag for flag in ('amx_bf16', 'avx512_bf16') if flag in flags]
    yield ok(
        f'instructions: {torch.backends.cpu.get_cpu_capability()}; bf16 '
        + (f'in hardware ({", ".join(fast)})' if fast else 'not in hardware, so slower than fp32 on the CPU')
    )


def find_space() -> Iterator[Finding]:
    """/dev/shm, through which loader workers hand over their samples, and the disk."""
    here = shutil.disk_usage('.').free
    text = f'{_size(here)} free in {Path.cwd()}'
    # a state of DBLRGAN with its optimisers takes about 3 GB
    yield ok(text) if here > 10 * _GIB else note(text, 'checkpoints need several GB: free some, or train elsewhere')
    if not _SHARED_MEMORY.is_dir():
        return
    shared = shutil.disk_usage(_SHARED_MEMORY).free
    text = f'{_size(shared)} free in /dev/shm, for samples from loader workers'
    if shared < 64 * _MIB:
        yield fault(text, 'workers end with a bus error; give more, or set num_worker_per_gpu: 0:', *_more_shared())
    elif shared < _GIB:
        yield note(text, 'if workers end with a bus error, give more:', *_more_shared())
    else:
        yield ok(text)


def find_compiler() -> Iterator[Finding]:
    """The C++ compiler that ``torch.compile`` calls."""
    names = [os.environ.get('CXX', ''), 'g++', 'clang++']
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found:
        yield ok(f'C++ compiler for train.compile: {found}')
    else:
        yield note('no C++ compiler: train.compile cannot be used', 'if you need it:', 'apt-get install g++')


def _processor_flags() -> set[str]:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith(('flags', 'Features'))), '').split())


def _more_shared() -> tuple[str, str]:
    return 'mount -o remount,size=8G /dev/shm', 'docker run --shm-size=8g ...'


def _size(number: int) -> str:
    return f'{number / _GIB:.1f} GiB' if number >= _GIB else f'{number / _MIB:.0f} MiB'
