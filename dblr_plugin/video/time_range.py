"""The part of a source to restore: a time range for videos, frame numbers for folders."""

from __future__ import annotations

import re
from fractions import Fraction

from dblr_plugin.errors import DBLRError

__all__ = ['parse_position', 'parse_rate', 'parse_time']

# nine digits are years, and fit into what FFmpeg counts with
_TIME = re.compile(r'(?:(?:(\d{1,9}):)?(\d{1,9}):)?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})')
_RATE = re.compile(r'[\d./]{1,20}')


def parse_time(text: str | float, option: str) -> Fraction:
    """Returns seconds from ``90``, ``1:30``, ``0:01:30.5`` or a number.

    Raises:
        DBLRError: It is none of these; ``option`` names it in the message.
    """
    match = _TIME.fullmatch(str(text).strip())
    if match is None:
        raise DBLRError(f"{option} '{text}' is no time; give seconds, such as 90.5, or h:mm:ss, such as 0:01:30.5")
    hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_position(text: str | float, option: str) -> int:
    """Returns a picture's number in a folder, 0 for the first; raises DBLRError for anything else."""
    if not re.fullmatch(r'\d{1,9}', str(text).strip()):
        raise DBLRError(f"{option} '{text}' is no number of a picture; pictures of a folder are counted 0, 1, 2, ...")
    return int(text)


def parse_rate(text: str | float | Fraction) -> Fraction:
    """Returns pictures a second from ``25``, ``29.97`` or ``30000/1001``; raises DBLRError for anything else."""
    text = str(text).strip()
    try:
        rate = Fraction(text if _RATE.fullmatch(text) else 0)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 10000:
        raise DBLRError(f"fps '{text}' is no frame rate; give a number such as 25 or 30000/1001")
    return rate.limit_denominator(1001000)
