"""Starts processes as forks of one that has imported this package: at once, and with that memory shared.

A process that is spawned takes seconds to import torch and BasicSR, and hundreds of MB for them; a fork of a process
whose torch has threads, or a GPU, may hang.
"""

from __future__ import annotations

import functools
import os
import sys
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext

__all__ = ['fork_context']


@functools.cache
def fork_context(module: str = 'dblr_plugin') -> ForkServerContext:
    """Returns what starts such processes; the one that they are forks of begins to import, and ends with this process.

    Args:
        module: What it imports. The first call of a process decides.
    """
    context = get_context('forkserver')
    context.set_forkserver_preload([module])
    before = os.environ.get('PYTHONPATH')
    # before Python 3.13 it looks for modules where Python itself does, and not where this process does
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ['PYTHONPATH']
        else:
            os.environ['PYTHONPATH'] = before
    return context
