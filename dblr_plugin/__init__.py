"""Video deblurring for BasicSR: importing this package registers every network, loss, metric, data set and model.

The ``dblr`` command registers later, when it has read its arguments: help and wrong arguments need no torch.
"""

import importlib
import os
import sys
from typing import Any

from dblr_plugin.version import __version__

__all__ = ['VideoRestorer', '__version__', 'archs', 'data', 'load_network', 'losses', 'models', 'register']

_ON_DEMAND = {
    'VideoRestorer': 'dblr_plugin.restore.video_restorer',
    'load_network': 'dblr_plugin.restore.loading',
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)


def register() -> None:
    """Makes BasicSR importable and registers every class with it; importing the package does so.

    Raises:
        ImportError: BasicSR, or something that it or the plugin needs, cannot be imported.
    """
    try:
        _register()
    except Exception as error:  # mismatched packages raise RuntimeError, OSError, AttributeError and more
        raise ImportError(
            f"dblr_plugin cannot be imported ({type(error).__name__}: {error}); run 'dblr doctor', which finds the "
            'cause and names the fix'
        ) from error


def _register() -> None:
    from dblr_plugin import compat

    compat.prepare_import()

    from dblr_plugin import archs, data, hooks, losses, models  # noqa: F401
    from dblr_plugin.evaluation import metrics  # noqa: F401

    compat.repair_archiving()
    compat.repair_distributed()
    hooks.install()


def _is_command() -> bool:
    """Whether this program is ``dblr`` or ``python -m dblr_plugin``, or ``.launch``, which only starts others.

    ``sys.argv`` would not do: it is not complete yet under ``-m``, and spawned loader workers inherit it.
    """
    arguments = iter(sys.orig_argv[1:])
    for argument in arguments:
        if argument in ('-W', '-X'):
            next(arguments, None)  # its value
        elif argument == '-m':
            return next(arguments, None) in ('dblr_plugin', 'dblr_plugin.launch')
        elif not argument.startswith('-'):
            return os.path.basename(argument) in ('dblr', 'dblr.exe')
    return False


if not _is_command():
    register()
