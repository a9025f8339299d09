"""Small file systems in memory that are full, read-only, or become full while a command works."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ['can_mount', 'refusing_disk']

_PAGE = 4096


def can_mount(folder: Path) -> bool:
    """Returns whether this process may mount file systems, which needs root and is not allowed in most containers."""
    if os.geteuid() != 0:
        return False
    mounted = subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', folder], capture_output=True, check=False)
    if mounted.returncode == 0:
        subprocess.run(['umount', folder], check=True)
    return mounted.returncode == 0


@contextmanager
def refusing_disk(folder: Path) -> Iterator[Disk]:
    """Mounts an empty disk at an existing folder."""
    if not can_mount(folder):
        pytest.skip('only root may mount disks')
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(['umount', '--lazy', folder], check=True)


class Disk:
    """A file system in memory.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def become(self, state: str) -> None:
        """Sets the state: ``read_only``, ``full``, or the number of kB that are left."""
        if state == 'read_only':
            self._remount('ro')
            return
        used = os.statvfs(self.folder)
        taken = (used.f_blocks - used.f_bfree) * used.f_frsize
        left = 0 if state == 'full' else int(state) << 10
        self._remount(f'size={max(_PAGE, taken + left)}')
        if left == 0 and os.statvfs(self.folder).f_bfree:  # a disk has at least one page
            (self.folder / 'others').write_bytes(bytes(_PAGE))

    def remains(self) -> list[str]:
        """Returns files that were left incomplete."""
        return [str(path) for path in self.folder.rglob('*') if 'partial' in path.name]

    def _remount(self, option: str) -> None:
        subprocess.run(['mount', '-o', f'remount,{option}', self.folder], check=True)
