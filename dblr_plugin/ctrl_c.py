"""Ends a program at once, with one line, on Ctrl-C in its first seconds: libraries being imported hide the exception.

It imports next to nothing, to be there first.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

__all__ = ['ends_at_once', 'interrupts']


def ends_at_once() -> None:
    """From now on Ctrl-C ends this program."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def interrupts() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again, for work that has something to finish or to undo."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    if os.environ.get('RANK', '0') == '0':  # a terminal interrupts all processes of a run
        os.write(2, b'dblr: error: interrupted\n')
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
