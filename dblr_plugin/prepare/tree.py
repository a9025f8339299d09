"""Puts the files of checked clips into ``DST/{train,test}/{lq,gt}/<clip>/<frame>.<suffix>``, as links or copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, make_folder, require_space
from dblr_plugin.prepare.check import CheckedClip
from dblr_plugin.prepare.manifest import files_below
from dblr_plugin.threads import DISK_THREADS, parallel

__all__ = ['clip_folder', 'place', 'targets', 'unplanned']

LINK_BYTES = 512  # a link's entry in its folder, and the inode that a symbolic one takes on some file systems


def clip_folder(part: str, side: str, clip: str) -> str:
    """Returns a clip's folder within the tree."""
    return f'{part}/{side}/{clip}'


def targets(clips: list[CheckedClip]) -> dict[str, Path]:
    """Returns path within the tree -> source file, of all frames."""
    return {
        f'{clip_folder(checked.clip.part, side, checked.clip.name)}/{frame}{source.suffix}': source
        for checked in clips
        for side, frames in checked.files.items()
        for frame, source in frames.items()
    }


def unplanned(dst: Path, files: Collection[str]) -> list[str]:
    """Returns the frames in the tree that are not among ``files``."""
    return [path for path in files_below(dst) if path not in files]


def place(dst: Path, files: dict[str, Path], copy: bool) -> None:
    """Links or copies files into the tree; those that are there already are left alone.

    A link is a hard one, or a symbolic one where the disks differ. A copy takes its name when it is complete.

    Raises:
        DBLRError: The disk has too little space for what is missing, or refuses.
    """
    missing = [task for task in files.items() if not _in_place(dst / task[0], task[1], copy)]
    require_space(dst, sum(source.stat().st_size if copy else LINK_BYTES for _, source in missing), 'the tree')
    for folder in {os.path.dirname(path) for path, _ in missing}:
        make_folder(dst / folder)

    def put(task: tuple[str, Path]) -> None:
        source = task[1]
        with atomic_write(dst / task[0]) as partial:
            shutil.copyfile(source, partial) if copy else _link(source, partial)

    try:
        for _ in parallel(put, missing, DISK_THREADS, len(missing), 'copying' if copy else 'linking'):
            pass
    except (DBLRError, OSError) as error:
        raise DBLRError(f'{error}; then run the same command again, it goes on from there') from error


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source.resolve(), path)
    except OSError:  # another disk, or a file system without hard links
        path.symlink_to(source.resolve())


def _in_place(path: Path, source: Path, copy: bool) -> bool:
    """Whether the tree has the file: as a copy when one is wanted, otherwise as a link or a copy."""
    try:
        if os.path.samefile(path, source):
            return not copy
        return path.stat().st_size == source.stat().st_size and path.stat().st_mtime >= source.stat().st_mtime
    except FileNotFoundError:
        return False
