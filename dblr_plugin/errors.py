"""The error for everything that a user can fix, shown as one line without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ['DBLRError', 'counted', 'first_faults', 'first_line', 'nearest', 'on_one_line', 'raise_faults']

_MAX_SHOWN = 10  # faults in one message


class DBLRError(Exception):
    """User input that cannot be used. The message names the file, clip, frame or key, and the fix."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the known word closest to ``word``, or ``''`` if none is close."""
    match = get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ''


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun, in the plural unless the count is one.

    >>> counted(1, 'frame'), counted(0, 'frame')
    ('1 frame', '0 frames')
    """
    return f'{count} {noun}{"" if count == 1 else "s"}'


def first_line(error: BaseException) -> str:
    """Returns the first line of a library error's message, or its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def on_one_line(message: str) -> str:
    r"""Returns a message of several lines, such as a list of faults, as one, for tables and lists.

    >>> on_one_line('2 faults in the data:\n  a is missing\n  b is empty')
    '2 faults in the data: a is missing; b is empty'
    """
    return '; '.join(line.strip() for line in message.strip().splitlines()).replace(':; ', ': ')


def raise_faults(faults: list[str], of: str) -> None:
    """Raises one DBLRError that lists the first ten faults and counts the others; returns if there are none.

    Args:
        faults: One line each.
        of: What they were found in, such as ``data``.
    """
    if len(faults) == 1:
        raise DBLRError(faults[0])
    if faults:
        raise DBLRError('\n  '.join([f'{len(faults)} faults in the {of}:', *first_faults(faults)]))


def first_faults(faults: list[str]) -> list[str]:
    """Returns the first ten faults, and a last line that counts the others."""
    more = [f'and {len(faults) - _MAX_SHOWN} more'] if len(faults) > _MAX_SHOWN else []
    return [*faults[:_MAX_SHOWN], *more]
