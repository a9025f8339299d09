"""Environments that are broken for real: what stands first on PYTHONPATH is what a program imports."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import run_python

Doctor = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder that the doctor's program finds modules and packages in before all others."""
    (tmp_path / 'broken').mkdir()
    return tmp_path / 'broken'


@pytest.fixture
def doctor(tmp_path: Path, broken: Path) -> Doctor:
    """Runs ``dblr doctor`` in that environment; whatever is wrong, the user sees no traceback."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
        environment = {'PYTHONPATH': os.pathsep.join([str(broken), os.environ.get('PYTHONPATH', '')]), **environment}
        result = run_python('-m', 'dblr_plugin', 'doctor', *arguments, cwd=tmp_path, **environment)
        assert 'Traceback' not in result.stdout + result.stderr
        return result

    return run
