"""What takes seconds to make is made once for all processes that run tests side by side."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Made = TypeVar('Made')


def made_once(request: pytest.FixtureRequest, name: str, make: Callable[[Path], Made]) -> Made:
    """What ``make`` returns for a fresh folder of this name; only the first of all test processes calls it.

    Args:
        request: The session fixture's.
        name: Of the folder.
        make: Fills the folder; what it returns must be picklable. Nothing may be written into the folder later.
    """
    root = request.getfixturevalue('tmp_path_factory').getbasetemp()
    if hasattr(request.config, 'workerinput'):
        root = root.parent  # that of all processes
    result = root / f'{name}.pickle'
    with FileLock(root / f'{name}.lock'):
        if not result.exists():
            (root / name).mkdir()  # fails if making it has failed before: no other process tries again
            result.write_bytes(pickle.dumps(make(root / name)))
        return pickle.loads(result.read_bytes())
