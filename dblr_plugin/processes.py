"""Starts processes as forks of one that has imported this package: at once, and sharing its memory.

A spawned process takes seconds and hundreds of MB to import torch and BasicSR; a fork of a process whose torch uses
threads or a GPU may hang.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from contextlib import suppress
from multiprocessing import forkserver, get_context, util
from multiprocessing.context import ForkServerContext
from pathlib import Path

__all__ = ['fork_context', 'shorten_socket_paths', 'usable_cores']

#: Most bytes of a socket's path, less what multiprocessing appends to the folder: ``/pymp-12345678/listener-12345678``
_LONGEST_FOLDER = 107 - 32

#: A container's limit (``docker run --cpus``, Kubernetes): microseconds of processor time per period
_CPU_LIMIT = Path('/sys/fs/cgroup/cpu.max')


def shorten_socket_paths() -> None:
    """Puts the sockets of this process and its children below ``/tmp`` if those in ``TMPDIR`` had too long a path.

    A loader worker could not send a batch, and training would wait for it. Python 3.14 does the same.
    """
    with suppress(FileNotFoundError):  # there is no folder for temporary files
        folder = tempfile.gettempdir()
        if len(os.fsencode(folder)) <= _LONGEST_FOLDER:
            return
        try:
            for tempfile.tempdir in ('/tmp', '/var/tmp'):
                with suppress(OSError):
                    util.get_temp_dir()  # kept from the first call on
                    return
        finally:
            tempfile.tempdir = folder


def usable_cores() -> int:
    """Returns the number of cores this process may use; in a cluster's job or a container there may be many more."""
    # macOS cannot tell
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no container, or one without a limit ('max')
        quota, period = map(int, _CPU_LIMIT.read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


@functools.cache
def fork_context(module: str = 'dblr_plugin') -> ForkServerContext:
    """Returns the multiprocessing context; its server begins to import at once, and ends with this process.

    Args:
        module: The module to import. The first call of a process decides.
    """
    shorten_socket_paths()
    context = get_context('forkserver')
    context.set_forkserver_preload([module, 'dblr_plugin.frozen'])
    before = os.environ.get('PYTHONPATH')
    # before Python 3.13 the server looks for modules on Python's default path, not on this process's
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ['PYTHONPATH']
        else:
            os.environ['PYTHONPATH'] = before
    return context
