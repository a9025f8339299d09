"""Lets a training run save before it stops on SIGINT, SIGTERM or SIGUSR1, which SLURM can send before a time limit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait
from types import FrameType

import torch.distributed as dist

__all__ = ['end_program', 'ignore_in_worker', 'received', 'watch']

_received: int | None = None


def watch() -> None:
    """Installs handlers that only record the signals; the run checks :func:`received` where it can stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _record)


def received() -> int | None:
    """Returns the number of the first signal that this process received; None without one."""
    return _received


def ignore_in_worker() -> None:
    """Keeps a loader worker alive until its training process is done with it.

    Ctrl-C, SLURM and systemd signal all processes of a run, but the last iteration still needs the workers. The
    training process also sends SIGTERM, to end workers that hang, so the sender matters, which only sigwaitinfo
    reveals. Workers end with the training process, however it ends; torch watches only their parent, which may be a
    fork server instead.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    run = multiprocessing.parent_process()
    assert run is not None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # also in threads started later
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS, where workers that hang end with the run
        threading.Thread(target=_end_with, args=(run.pid,), daemon=True).start()
    threading.Thread(target=_end_after, args=(run.sentinel,), daemon=True).start()


def _end_after(run: int) -> None:
    """Ends this process once the training process has ended."""
    wait([run])
    os._exit(0)


def _end_with(run: int) -> None:
    """Ends this process when the training process sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != run:
        pass
    os._exit(0)  # torch reports any other code as a failure


def _record(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is None:
        _received = number
        # not print or the logger, which the signal may have interrupted; stderr's reader may be gone
        with contextlib.suppress(OSError):
            os.write(2, b'\ndblr: stopping after this iteration, once it is saved (Ctrl-\\ stops at once)\n')


def end_program() -> None:
    """Ends the program on all processes after a signal; the exit code is the shell's for that signal."""
    if dist.is_initialized():
        dist.barrier()  # torchrun kills the others once one has ended, and the first may still be saving
        dist.destroy_process_group()
    raise SystemExit(128 + (received() or 15))
