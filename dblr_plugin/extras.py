"""Imports optional packages, with an error that says how to install them."""

from __future__ import annotations

import importlib
from types import ModuleType

from dblr_plugin.errors import DBLRError

__all__ = ['load_fast']


def load_fast(name: str) -> ModuleType:
    """Imports a package of the extra ``fast``, which tile databases need.

    Raises:
        DBLRError: It is not installed, or does not load on this system.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DBLRError(f"tiles need the package {name} ({error}): pip install 'dblr_plugin[fast]'") from error
