"""What a check tells, and the commands that cure."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ['FAULT', 'NOTE', 'OK', 'Finding', 'fault', 'from_message', 'note', 'ok', 'pip', 'reason']

OK, NOTE, FAULT = 'ok', 'note', 'FAULT'


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        level: ``OK``, ``NOTE`` (works, but there is something to know) or ``FAULT``.
        text: What was found.
        cure: What to do about it.
        commands: Lines to copy into a shell.
    """

    level: str
    text: str
    cure: str = ''
    commands: tuple[str, ...] = ()


def ok(text: str, *commands: str) -> Finding:
    """All is well; the commands are what to do next."""
    return Finding(OK, text, '', commands)


def note(text: str, cure: str = '', *commands: str) -> Finding:
    """Nothing fails, but the user should know."""
    return Finding(NOTE, text, cure, commands)


def fault(text: str, cure: str, *commands: str) -> Finding:
    """Something fails or will fail."""
    return Finding(FAULT, text, cure, commands)


def pip(*arguments: str) -> str:
    """A command that runs pip in this environment, whichever is on the user's PATH."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return shlex.join([str(python), '-m', 'pip', *arguments])


def reason(error: BaseException) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def from_message(error: Exception, prefix: str = '') -> Finding:
    """A fault in the words of a DBLRError, which end with the cure, behind a semicolon."""
    # an error that crossed from a loader's worker carries the worker's traceback in front of it
    message = str(error).rsplit('DBLRError: ', 1)[-1].strip()
    text, _, cure = message.rpartition('; ')
    if not text or '\n' in message:  # several faults, each with its own cure
        return fault(prefix + message.replace('\n', '\n       '), '')
    return fault(prefix + text, cure)
