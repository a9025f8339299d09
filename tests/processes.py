"""Running commands as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml


def write_options(path: Path, options: dict) -> Path:
    """Writes an option file; keeps the order of the keys."""
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def run_python(*args: object, cwd: Path, timeout: float = 240, **env: str) -> subprocess.CompletedProcess:
    """Runs this interpreter as a user would, on one thread; output is text."""
    command = [sys.executable, *map(str, args)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **env}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def torchrun(processes: int, *args: object) -> list[object]:
    """Arguments for :func:`run_python` that start torchrun with a free port."""
    return ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}', *args]
