"""Prints any text in any encoding, without control sequences for the terminal."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

__all__ = ['never_fail_to_print', 'printable', 'quiet']

# C0 but for line breaks and tabs, DEL, C1, and what turns the direction of writing or begins a line of its own
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]')


def never_fail_to_print() -> None:
    r"""Makes characters that a console lacks appear as ``\xe9``, where Python would end the program.

    Warnings are printed without what steers terminals.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # not a stream that a notebook or a test has put there
            stream.reconfigure(errors='backslashreplace')
    if logging.lastResort is not None:  # prints the warnings of commands, which quote what files say of themselves
        logging.lastResort.setFormatter(_Printable())


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def printable(text: str) -> str:
    r"""A stranger's text with the characters that steer terminals written out.

    >>> printable('\x1b[2Jtrained')
    '\\x1b[2Jtrained'
    """
    return _CONTROL.sub(lambda found: found[0].encode('unicode_escape').decode(), text)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps a talkative library's progress, logs and deprecations from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action='ignore'), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
