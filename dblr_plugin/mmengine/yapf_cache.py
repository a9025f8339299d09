"""A fix of yapf 0.43, which MMEngine imports: processes that start together may read its cache half written."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from typing import Any

__all__ = ['write_whole']


def write_whole() -> None:
    """Makes yapf rename its cached grammar only after it is fully written; call this before yapf is imported.

    yapf renames the file before it is flushed. Another process of torchrun then ends with ``EOFError``, and so does
    every later one if the disk was full.
    """
    with suppress(ImportError):  # other versions may keep their grammar elsewhere
        from yapf_third_party._ylib2to3.pgen2.grammar import Grammar

        Grammar.dump = _dump


def _dump(grammar: Any, filename: str) -> None:
    partial = f'{filename}.{os.getpid()}'
    try:
        with open(partial, 'wb') as file:
            pickle.dump(grammar.__dict__, file, pickle.HIGHEST_PROTOCOL)
        os.replace(partial, filename)
    except OSError:  # yapf goes on without a cache
        with suppress(OSError):
            os.remove(partial)
        raise
