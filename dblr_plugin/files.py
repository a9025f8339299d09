"""Files that are there whole or not at all, and what it means when they cannot be written."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = ['REFUSALS', 'check_writable', 'partial_of', 'atomic_write', 'write_fault']

#: What refuses a write, by errno, and what helps.
REFUSALS = {
    errno.ENOSPC: 'the disk is full; make room or give another output',
    errno.EDQUOT: 'your quota of the disk is used up; make room or give another output',
    errno.EFBIG: 'the file system takes no file of that size; give an output on another one',
    errno.EROFS: 'the file system is read-only; give an output on another one',
    errno.EACCES: 'permission denied; mend the permissions or give another output',
    errno.EPERM: 'the system does not permit it; mend the permissions or give another output',
    errno.ENAMETOOLONG: 'the name is too long; give a shorter one',
    errno.ENOENT: 'its folder does not exist; make it or give another output',
    errno.ENOTDIR: 'a file stands where its folder should be; move that away or give another output',
    errno.EISDIR: 'a folder has this name; give another output',
    errno.EIO: 'the disk fails; check it, or give an output on another one',
}

_LONGEST_NAME = 255  # bytes, on nearly every file system


@contextmanager
def atomic_write(path: Path, sync: bool = False) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to; it takes its name when the block ends, and is removed when it fails.

    Args:
        path: The file; an older one stays until then.
        sync: Whether the content must be on the disk before it takes its name, to survive a power cut.

    Raises:
        DBLRError: If it cannot be written, with the reason. A block's OSErrors about other files are left as they are.
    """
    partial = partial_of(path)
    try:
        partial.unlink(missing_ok=True)  # of a process that was killed
        try:
            yield partial
            if sync:
                with open(partial, 'rb') as file:
                    os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) not in (str(partial), str(path)):
            raise
        raise write_fault(path, error) from error


def partial_of(path: Path) -> Path:
    """The hidden file beside ``path`` that holds it until it is whole; its name is no longer than names may be."""
    name = f'.{path.name}.partial'
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f'.{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.partial'
    return path.with_name(name)


def write_fault(path: str | Path, error: OSError) -> DBLRError:
    """The one line that says why a file could not be written, and what helps."""
    reason = REFUSALS.get(error.errno) or f'{error.strerror or error}; give another output'
    return DBLRError(f'{path} could not be written: {reason}')


def check_writable(path: Path) -> None:
    """Refuses an output at once that could not be written when the work is done.

    Args:
        path: A file to be, in a folder that exists; nothing is left there.

    Raises:
        DBLRError: If its folder takes no new files, or not of this name.
    """
    partial = partial_of(path)
    try:
        path.exists()  # a name that is too long is told here
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666))
        partial.unlink()
    except OSError as error:
        raise write_fault(path, error) from error
