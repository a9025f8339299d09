"""Starts processes as forks of one that has imported this package: at once, and sharing its memory.

A spawned process takes seconds and hundreds of MB to import torch and BasicSR; a fork of a process whose torch uses
threads or a GPU may hang.
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
    """Returns the multiprocessing context; its server begins to import at once, and ends with this process.

    Args:
        module: The module to import. The first call of a process decides.
    """
    context = get_context('forkserver')
    context.set_forkserver_preload([module])
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
