"""What the processor can do, as Linux describes it."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ['cpu_flags', 'repeatable_x264']


def cpu_flags() -> set[str]:
    """Returns Linux's names of the processor's vector and matrix units, such as ``avx2``; empty elsewhere."""
    try:
        return set(re.findall(r'\b(?:avx|amx)\w*', Path('/proc/cpuinfo').read_text()))
    except OSError:
        return set()


def repeatable_x264() -> dict[str, str]:
    """Returns options with which x264 encodes the same frames to the same file in every run.

    Its AVX-512 code for macroblock trees does not, by little, on an EPYC (Zen 5); without it, encoding takes a tenth
    longer.
    """
    return {'x264-params': 'asm=avx2'} if 'avx512f' in cpu_flags() else {}
