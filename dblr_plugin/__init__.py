"""Video deblurring for BasicSR: importing this package registers every network, loss, metric, data set and model.

The ``dblr`` command registers later, after parsing its arguments, so that help and usage errors need no torch.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from dblr_plugin.version import __version__

__all__ = ['VideoRestorer', '__version__', 'archs', 'data', 'load_network', 'losses', 'models', 'register']

if sys.platform == 'win32':  # it has neither fcntl nor fork
    raise ImportError('dblr_plugin needs Linux; on Windows, install and run it in WSL (wsl --install)')

_ON_DEMAND = {
    'VideoRestorer': 'dblr_plugin.restore.video_restorer',
    'load_network': 'dblr_plugin.restore.loading',
}


if TYPE_CHECKING:
    from dblr_plugin.restore.loading import load_network
    from dblr_plugin.restore.video_restorer import VideoRestorer
else:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _ON_DEMAND:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        return getattr(importlib.import_module(_ON_DEMAND[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def register() -> None:
    """Makes BasicSR importable and registers every class with it; importing the package calls this.

    Raises:
        ImportError: If BasicSR, or a dependency of BasicSR or the plugin, cannot be imported.
    """
    try:
        from dblr_plugin import compat

        with compat.light_import():
            import basicsr  # noqa: F401

            from dblr_plugin import archs, hooks, losses, models  # noqa: F401
            from dblr_plugin.data import (  # noqa: F401
                synthetic_motion_dataset,
                video_deblur_dataset,
                video_deblur_test_dataset,
            )
            from dblr_plugin.evaluation import metrics  # noqa: F401
            from dblr_plugin.processes import shorten_socket_paths

        shorten_socket_paths()
        compat.repair_distributed()
        hooks.install()
    except Exception as error:  # mismatched packages raise RuntimeError, OSError, AttributeError and more
        raise ImportError(
            f"dblr_plugin cannot be imported ({type(error).__name__}: {error}); run 'dblr doctor', which finds the "
            'cause and names the fix'
        ) from error
    if _PROGRAM is not None:
        gc.freeze()  # it is kept: no collection need look through it, such as the one at the end of the process


def register_within_work() -> None:
    """Registers during a command's work; Ctrl-C is deferred until afterwards, as imports may swallow the exception."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
        register()
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        register()
    finally:
        signal.signal(signal.SIGINT, before)
    for number in received[:1]:
        signal.raise_signal(number)


def _program() -> str | None:
    """Returns the name of this package's module that runs as the program, ``dblr_plugin`` for ``dblr``; None if none.

    ``sys.argv`` cannot be used: it is not complete yet under ``-m``, and spawned loader workers inherit it.
    """
    arguments = iter(sys.orig_argv[1:])
    for argument in arguments:
        if argument in ('-W', '-X'):
            next(arguments, None)  # its value
        elif argument == '-m':
            module = next(arguments, '')
            return module if module.partition('.')[0] == 'dblr_plugin' else None
        elif not argument.startswith('-'):
            return 'dblr_plugin' if os.path.basename(argument) in ('dblr', 'dblr.exe') else None
    return None


def raise_on_ctrl_c() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt again, for work that must be finished or undone."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    """Ends this program with one line on Ctrl-C, as libraries may swallow the exception while they are imported."""
    if os.environ.get('RANK', '0') == '0':  # a terminal interrupts all processes of a run
        os.write(2, b'dblr: error: interrupted\n')
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


_PROGRAM = _program()
if _PROGRAM is not None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
if _PROGRAM not in ('dblr_plugin', 'dblr_plugin.launch'):  # needed by the launched program, and later by dblr
    if _PROGRAM is not None:
        from dblr_plugin.console import never_fail_to_print, show_errors_in_one_line

        never_fail_to_print()
    register()
    if _PROGRAM is not None:
        show_errors_in_one_line()
        raise_on_ctrl_c()
