"""Changes single options, and finds them in a written file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path


def changed(options: dict, trail: str, value: object) -> dict:
    """Returns a copy with the value at ``a.b.c`` set, or removed if it is ``...``."""
    options = copy.deepcopy(options)
    *sections, key = trail.split('.')
    section = options
    for name in sections:
        section = section[name]
    if value is ...:
        del section[key]
    else:
        section[key] = value
    return options


def leaves(options: dict, trail: str = '') -> Iterator[str]:
    """Yields the keys whose values are not sections, as ``a.b.c``."""
    for key, value in options.items():
        name = f'{trail}.{key}' if trail else key
        if isinstance(value, dict):
            yield from leaves(value, name)
        else:
            yield name


def line_of(path: Path, trail: str) -> int:
    """Returns the line of a key in a file written by ``write_options``."""
    lines = path.read_text().splitlines()
    line = -1
    for depth, key in enumerate(trail.split('.')):
        line = next(i for i in range(line + 1, len(lines)) if lines[i].startswith(f'{"  " * depth}{key}:'))
    return line + 1
