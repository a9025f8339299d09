"""Describes the machine that a measurement ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ['best_device', 'describe_commit', 'describe_device', 'describe_machine', 'describe_versions']


def best_device() -> torch.device:
    """The first GPU if there is one, else the CPU: where networks are measured."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def describe_device(device: torch.device) -> str:
    """A GPU's name, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type


def describe_machine() -> dict[str, str | int]:
    """Returns the processor, its cores in use, the memory in bytes, and the system."""
    return {
        'processor': _processor(),
        'cores': os.cpu_count() or 1,
        'memory': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') if hasattr(os, 'sysconf') else 0,
        'system': f'{platform.system()} {platform.release()} {platform.machine()}',
    }


def describe_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Returns the versions of Python and of those of the packages that are installed."""
    found = {'python': platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe_commit() -> str | None:
    """Returns this checkout's commit, with ``+`` behind it when files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        command = ['git', 'describe', '--always', '--abbrev=40', '--dirty=+', '--exclude=*']
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Returns the processor's name; where the system has no list of processors, what Python knows of it."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor())
