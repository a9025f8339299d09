"""Keeps the memory of freed tensors for reuse."""

from __future__ import annotations

import ctypes
import platform

__all__ = ['keep_freed_memory']

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_ of malloc.h


def keep_freed_memory() -> None:
    """Lets this process keep the memory of freed tensors for the next ones; does nothing where glibc is not in use.

    Otherwise each large tensor is new memory, which the system fills with zeros page by page, and gives back after use.
    Restoring in plain PyTorch takes a quarter less processor time this way (32 features, 720x404, two cores), and up to
    an eighth more memory. OpenVINO manages its own, and in training no gain was measurable.
    """
    if platform.libc_ver()[0] == 'glibc':
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
