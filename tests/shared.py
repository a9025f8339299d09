"""Makes slow test inputs once for all processes of a parallel test run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Made = TypeVar('Made')


def made_once(request: pytest.FixtureRequest, name: str, make: Callable[[Path], Made]) -> Made:
    """Returns what ``make`` returns for a new folder; only the first test process calls it.

    Args:
        request: The request of a session fixture.
        name: The name of the folder.
        make: Fills the folder and returns a picklable object. Nothing may be written into the folder later.
    """
    root = request.getfixturevalue('tmp_path_factory').getbasetemp()
    if hasattr(request.config, 'workerinput'):
        root = root.parent  # the folder of all processes
    result = root / f'{name}.pickle'
    with FileLock(root / f'{name}.lock'):
        if not result.exists():
            (root / name).mkdir()  # fails if another process has failed to make it, so that none tries again
            result.write_bytes(pickle.dumps(make(root / name)))
        return pickle.loads(result.read_bytes())
