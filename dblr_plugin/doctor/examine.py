"""Runs checks so that none can spoil the others: in another process, within a time limit, its output kept away.

A broken package may raise anything at import, abort the process, or hang; whatever it does becomes a finding.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from tempfile import TemporaryFile
from typing import IO

from dblr_plugin.doctor.findings import FAULT, Finding, fault, from_message, note, pip, reason
from dblr_plugin.errors import DBLRError

__all__ = ['Check', 'examine']

_REINSTALL = pip('install', '--force-reinstall', 'torch', 'torchvision', 'numpy', 'opencv-python')
_DEATHS = {
    signal.SIGILL: 'a package is built for newer processors than this one; install an older release of it',
    signal.SIGBUS: 'a file or /dev/shm is smaller than what was put there; free space, copy the data again',
    signal.SIGKILL: 'the system ended it, as a rule for want of memory; free some',
}


@dataclass(frozen=True)
class Check:
    """One question and how to answer it.

    Args:
        subject: The heading of the report it belongs to.
        name: What is checked.
        look: Gives the findings; may raise DBLRError, which is a fault with its own cure, or anything else.
        needs: Names of checks that must be without fault, or this one makes no sense.
        seconds: Time limit for each finding.
    """

    subject: str
    name: str
    look: Callable[[], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    seconds: float = 300  # of a network drive torch is imported that slowly


def examine(checks: Sequence[Check]) -> Iterator[tuple[Check, Finding]]:
    """Runs checks in order and yields what they find at once."""
    failed: set[str] = set()
    worker: _Process | None = None
    try:
        for check in checks:
            blocking = [name for name in check.needs if name in failed]
            if blocking:
                failed.add(check.name)
                yield check, note(f'{check.name}: not checked, as there is a fault in {", ".join(blocking)}')
                continue
            if worker is None or not worker.is_alive:
                worker = _Process(checks)
            for finding in worker.findings(check):
                if finding.level == FAULT:
                    failed.add(check.name)
                yield check, finding
    finally:
        if worker is not None:
            worker.end()


class _Process:
    """A forked process that runs the checks it is told to; what they print goes into a file."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = list(checks)
        self._output = TemporaryFile()
        context = multiprocessing.get_context('fork')
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._checks, theirs, self._ours, self._output))
        self._process.start()
        theirs.close()
        self.is_alive = True

    def findings(self, check: Check) -> Iterator[Finding]:
        """Runs one check; when it dies or takes too long, that is its last finding."""
        try:
            self._ours.send(self._checks.index(check))
            while self._ours.poll(check.seconds):
                finding = self._ours.recv()
                if finding is None:
                    return
                yield finding
        except (EOFError, OSError):
            self._process.join()
            yield self._death(check)
        else:
            yield fault(
                f'{check.name}: no answer within {check.seconds:g} seconds',
                'see whether a disk, a network drive or a device hangs, and run dblr doctor again',
            )
        self.end()

    def end(self) -> None:
        """Ends the process and all it has started."""
        if self.is_alive:
            self.is_alive = False
            self._ours.close()
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()  # it has not made its group yet, or is gone
            self._process.join()
            self._output.close()

    def _death(self, check: Check) -> Finding:
        code = self._process.exitcode
        number = signal.Signals(-code) if code < 0 else None
        self._output.seek(0)
        said = self._output.read().decode(errors='replace').strip().splitlines()
        text = f'{check.name}: ended the process ({number.name if number else f"exit status {code}"})'
        cure = _DEATHS.get(number)
        last_words = f': {said[-1].strip()}' if said else ''
        if cure is not None:
            return fault(text + last_words, cure)
        return fault(text + last_words, 'the package is damaged or does not fit the others; install anew:', _REINSTALL)


def _serve(checks: list[Check], connection: Connection, other_end: Connection, output: IO[bytes]) -> None:
    """The process's life: runs the checks it is sent the numbers of."""
    other_end.close()  # so that it ends with its parent
    os.setpgid(0, 0)
    for descriptor, name in ((1, 'stdout'), (2, 'stderr')):
        os.dup2(output.fileno(), descriptor)
        setattr(sys, name, open(descriptor, 'w', buffering=1, closefd=False))
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        try:
            for finding in checks[number].look():
                connection.send(finding)
        except DBLRError as error:
            connection.send(from_message(error))
        except BaseException as error:  # packages exit and panic while they are imported
            connection.send(_unforeseen(checks[number].name, error))
        connection.send(None)


def _unforeseen(name: str, error: BaseException) -> Finding:
    text = f'{name}: {reason(error)}'
    if isinstance(error, ModuleNotFoundError) and error.name:
        return fault(text, 'a package is missing; install it:', pip('install', error.name.split('.')[0]))
    return fault(text, 'the doctor does not know this; if installing anew does not help, report it:', _REINSTALL)
