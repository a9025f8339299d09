"""The one exception for what a user can mend: shown as a single line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ['DBLRError', 'nearest']


class DBLRError(Exception):
    """Something the user gave cannot be used. The message names the file, clip, frame or key, and the cure."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the known word closest to ``word``, or ``''`` when none is close."""
    match = get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ''
