"""Writes files completely or not at all, explains why one cannot be written, and locks folders that a run writes to."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = [
    'REFUSALS', 'atomic_write', 'check_writable', 'hold_folder', 'is_empty', 'make_folder', 'name_fault', 'partial_of',
    'require_space', 'sha256_of', 'write_fault', 'write_whole',
]  # fmt: skip

#: Reasons and fixes for failed writes; an error made without a number has None.
REFUSALS: dict[int | None, str] = {
    errno.ENOSPC: 'the disk is full; make room or give another output',
    errno.EDQUOT: 'your disk quota is used up; make room or give another output',
    errno.EFBIG: 'the file system does not support files of that size; choose an output on another disk',
    errno.EROFS: 'the file system is read-only; choose an output on another disk',
    errno.EACCES: 'permission denied; fix the permissions or give another output',
    errno.EPERM: 'the system does not permit it; fix the permissions or give another output',
    errno.ENAMETOOLONG: 'the name is too long; give a shorter one',
    errno.ENOENT: 'its folder does not exist; make it or give another output',
    errno.EEXIST: 'a file has this name; move it away or give another output',
    errno.ENOTDIR: 'part of the path is a file, not a folder; move it away or give another output',
    errno.EISDIR: 'a folder has this name; give another output',
    errno.EIO: 'the disk reports an error; check it, or choose an output on another disk',
}

_UNITS = {10**9: 'GB', 10**6: 'MB', 10**3: 'kB'}  # largest first

_LONGEST_NAME = 255  # bytes, on nearly every file system


@contextmanager
def atomic_write(path: Path, sync: bool = False) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; it is renamed when the block ends, and removed if the block fails.

    Args:
        path: The file; an existing one stays until then. A symbolic link is replaced, and its target stays.
        sync: Whether to flush the content to disk before the renaming, so that it survives a power cut.

    Raises:
        DBLRError: If it cannot be written, with the reason. OSErrors of the block about other files pass unchanged.
    """
    partial = partial_of(path)
    try:
        partial.unlink(missing_ok=True)  # left by a process that was killed
        try:
            yield partial
            if sync:
                with open(partial, 'rb') as file:
                    os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        names = {os.fspath(name) for name in (error.filename, error.filename2) if name is not None}
        if names and not names & {str(partial), str(path)}:
            raise
        raise write_fault(path, error) from error


def write_whole(path: Path, text: str, sync: bool = False) -> None:
    """Writes a text file in UTF-8 as :func:`atomic_write` does, and makes its folder."""
    make_folder(path.parent)
    with atomic_write(path, sync) as partial:
        partial.write_text(text, encoding='utf-8')


def make_folder(path: Path) -> None:
    """Makes a folder and its parents where they are missing; raises DBLRError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_fault(path, error) from error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuses to write what the disk has no room for.

    Args:
        folder: The folder to write to; it exists.
        needed: The size in bytes.
        what: The name for the message.

    Raises:
        DBLRError: If there is too little room; it states the free and the needed space.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise write_fault(folder, error) from error
    if free < needed:
        raise DBLRError(
            f'{folder}: {what} needs {_size(needed)} and the disk has {_size(free)} free; make room or give another '
            'output'
        )


def _size(count: int) -> str:
    """Returns a number of bytes in the largest unit that makes it at least one: ``1.5 MB``."""
    return next((f'{count / unit:.1f} {name}' for unit, name in _UNITS.items() if count >= unit), f'{count} B')


def partial_of(path: Path) -> Path:
    """Returns the hidden file beside ``path`` that holds it until it is complete; long names are hashed to fit."""
    name = f'.{path.name}.partial'
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f'.{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.partial'
    return path.with_name(name)


def write_fault(path: str | Path, error: OSError) -> DBLRError:
    """Returns the error, in one line, that says why a file could not be written and how to fix it."""
    number = errno.ENOSPC if 'requested and' in str(error) else error.errno  # NumPy's message for a full disk
    reason = REFUSALS.get(number) or f'{error.strerror or error}; give another output'
    return DBLRError(f'{path} could not be written: {reason}')


def check_writable(path: Path) -> None:
    """Refuses at once an output that could not be written once the work is done.

    Args:
        path: A future file, in a folder that exists; nothing is left there.

    Raises:
        DBLRError: If the folder accepts no new files, or none of this name.
    """
    partial = partial_of(path)
    try:
        path.exists()  # fails if the name is too long
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666))
        partial.unlink()
    except OSError as error:
        raise write_fault(path, error) from error


def sha256_of(path: str | Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def name_fault(name: str) -> str | None:
    """Returns why a clip's or frame's name from a file is unusable, or None: results go to folders of these names.

    >>> name_fault('GOPR0372_07_00') is None, name_fault('../../x'), name_fault('/x')
    (True, "'../../x' leads out of its folder", "'/x' leads out of its folder")
    """
    if not name.isprintable():
        return f'{name!a} has characters that cannot be printed'
    return f"'{name}' leads out of its folder" if {'', '.', '..'} & {*name.split('/')} else None


_LOCK = '.lock'
_held: dict[str, int] = {}


def is_empty(folder: Path) -> bool:
    """Returns whether a folder holds nothing, or only the lock that :func:`hold_folder` leaves there."""
    return all(path.name == _LOCK for path in folder.iterdir())


def hold_folder(folder: str, otherwise: str) -> None:
    """Locks a folder that this process writes to, if it exists, until the process ends.

    Args:
        folder: The folder.
        otherwise: What to do instead of waiting.

    Raises:
        DBLRError: Another process holds it.
    """
    if folder in _held:  # that of an earlier run of this process, or now archived
        os.close(_held.pop(folder))
    with suppress(OSError):  # no folder yet, or one that cannot be written, which is reported later
        _held[folder] = os.open(Path(folder, _LOCK), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(_held[folder], fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not shared with loader workers
        except (BlockingIOError, PermissionError) as error:
            raise DBLRError(f'{folder} is being written by another run; wait for it, or {otherwise}') from error
