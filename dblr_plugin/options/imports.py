"""``imports`` of an option file: Python files of the user's own, whose classes the file can then name."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = ['import_files']


def import_files(paths: Iterable[str]) -> None:
    """Runs each file once in this process, so that what it registers with BasicSR is there.

    Args:
        paths: Python files, as seen from the working directory.

    Raises:
        DBLRError: A file is missing, or fails.
    """
    for path in map(Path, paths):
        # a name of its own: two files may be called alike, and classes must not be registered twice
        name = f'dblr_imports_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}'
        if name in sys.modules:
            continue
        if path.suffix != '.py' or not path.is_file():
            raise DBLRError(f'imports: {path} is no Python file (looked up from {Path.cwd()})')
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the file does
            del sys.modules[name]
            raise DBLRError(f'imports: {path} fails: {type(error).__name__}: {error}') from error
