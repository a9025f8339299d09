"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ['whole_file']


@contextmanager
def whole_file(path: Path, sync: bool = False) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to; it takes its name when the block ends, and is removed when it fails.

    Args:
        path: The file; an older one stays until then.
        sync: Whether the content must be on the disk before it takes its name, to survive a power cut.
    """
    partial = path.with_name(f'.{path.name}.partial')
    partial.unlink(missing_ok=True)  # of a process that was killed
    try:
        yield partial
        if sync:
            with open(partial, 'rb') as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
