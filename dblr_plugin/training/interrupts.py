"""SIGINT and SIGTERM let a training run save before it stops."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from types import FrameType

__all__ = ['ignore_in_worker', 'received', 'watch']

_received: int | None = None


def watch() -> None:
    """From now on the two signals are only noted; the run asks :func:`received` where it can stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _record)


def received() -> int | None:
    """The number of the signal that this process got first, if any."""
    return _received


def ignore_in_worker() -> None:
    """A loader's worker lives until its process is done with it.

    Ctrl-C, SLURM and systemd signal all processes of a run, and the last iteration needs its workers. Their own process
    ends them with SIGTERM too, if they hang, so what counts is the sender; only sigwaitinfo tells it. They end with it
    however it ends; torch looks at the parent, which is not it where workers are forks of another process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = multiprocessing.parent_process()
    assert run is not None
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in threads that begin later too
        threading.Thread(target=_end_with, args=(run.pid,), daemon=True).start()
    threading.Thread(target=_end_after, args=(run.sentinel,), daemon=True).start()


def _end_after(run: int) -> None:
    """Ends this process after the run's."""
    wait([run])
    os._exit(0)


def _end_with(run: int) -> None:
    """Ends this process when the run's asks."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != run:
        pass
    os._exit(0)  # torch reports any other code as a failure


def _record(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is None:
        _received = number
        # not print or the logger: the signal may have come while they were writing; and who started us may be gone
        with contextlib.suppress(OSError):
            os.write(2, b'\ndblr: stopping after this iteration, once it is saved (Ctrl-\\ stops at once)\n')
