"""Runs functions of :mod:`dblr_plugin.page.preview` in processes that can be killed at any time.

They are forked from one that has imported torch and BasicSR, so that clips do not wait for the import and the page's
own process does not need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from dblr_plugin.errors import DBLRError
from dblr_plugin.processes import fork_context

__all__ = ['Cancelled', 'Task', 'prepare_tasks', 'temporary_folder']

_MODULE = 'dblr_plugin.page.preview'


def temporary_folder() -> Path:
    """Makes a folder for all files of this process, deleted when it ends; also deletes those of killed servers."""
    for lock in Path(tempfile.gettempdir()).glob('dblr_page_*/lock'):
        with contextlib.suppress(OSError, Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent)
    folder = tempfile.tempdir = os.environ['GRADIO_TEMP_DIR'] = tempfile.mkdtemp(prefix='dblr_page_')
    held = FileLock(Path(folder, 'lock'))
    held.acquire()
    # after multiprocessing's own folder, which is inside and has priority -100
    Finalize(None, lambda _: shutil.rmtree(folder, ignore_errors=True), args=[held], exitpriority=-200)
    return Path(folder)


def prepare_tasks() -> None:
    """Starts the process that tasks are forked from, which imports what they need."""
    fork_context(_MODULE)


class Cancelled(Exception):
    """Raised when a task was ended by :meth:`Task.end`."""


class Task:
    """A process that calls a function; it ends no later than this one.

    Args:
        name: The function's name.
        arguments: Its arguments, after a function that reports progress: frames done, total frames.
    """

    def __init__(self, name: str, *arguments: Any) -> None:
        context = fork_context(_MODULE)
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_call, args=(sender, name, arguments), daemon=True)
        self._process.start()
        sender.close()
        self._cancelled = False

    async def result(self, report: Callable[[int, int], None], warn: Callable[[str], None]) -> Any:
        """Returns the function's result; raises DBLRError if it does or fails, and Cancelled if the task is ended."""
        try:
            while True:
                kind, value = await asyncio.to_thread(self._receiver.recv)
                if kind == 'progress':
                    report(*value)
                elif kind == 'warning':
                    warn(value)
                elif kind == 'error':
                    raise DBLRError(value)
                else:
                    return value
        except EOFError:
            if self._cancelled:
                raise Cancelled from None
            raise DBLRError('restoring failed unexpectedly; the terminal of dblr demo-page shows more') from None
        finally:
            self.end()

    def end(self) -> None:
        """Kills the process at once."""
        self._cancelled = True
        self._process.kill()
        self._process.join()


def _call(sender: Connection, name: str, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the server
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process leaves behind
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: sender.send(('warning', record.getMessage()))  # type: ignore[method-assign]
    logging.getLogger('dblr_plugin').addHandler(handler)
    function = getattr(importlib.import_module(_MODULE), name)
    try:
        sender.send(('result', function(lambda *frames: sender.send(('progress', frames)), *arguments)))
    except DBLRError as error:
        sender.send(('error', str(error)))
