"""What the processor can do, as Linux describes it."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ['cpu_flags']


def cpu_flags() -> set[str]:
    """Returns Linux's names of the processor's vector and matrix units, such as ``avx2``; empty elsewhere."""
    try:
        return set(re.findall(r'\b(?:avx|amx)\w*', Path('/proc/cpuinfo').read_text()))
    except OSError:
        return set()
