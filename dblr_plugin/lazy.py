"""Names that a package offers, imported from its modules when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ['import_on_demand']


def import_on_demand(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Makes a package's ``__getattr__``.

    Args:
        package: Its name.
        homes: Name that it offers -> module that defines it, in full.
    """

    def import_attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(importlib.import_module(homes[name]), name)

    return import_attribute
