"""Video deblurring for BasicSR: importing this package registers every network, loss, metric, data set and model."""

import sys
from pathlib import Path

from dblr_plugin.version import __version__

__all__ = ['__version__', 'archs', 'data', 'losses', 'models', 'register']


def register() -> None:
    """Makes BasicSR importable and registers every class with it; importing the package does so."""
    from dblr_plugin import compat

    compat.prepare_import()

    from dblr_plugin import archs, data, hooks, losses, models  # noqa: F401
    from dblr_plugin.evaluation import registered  # noqa: F401

    compat.repair_archiving()
    compat.repair_distributed()
    hooks.install()


def _program_is_doctor() -> bool:
    """Whether this is ``dblr doctor`` or ``python -m dblr_plugin doctor``: it must start where nothing else does.

    ``sys.argv`` would not do: it is not complete yet under ``-m``, and spawned loader workers inherit it.
    """
    before = sys.orig_argv[: sys.orig_argv.index('doctor')] if 'doctor' in sys.orig_argv else []
    return before[-2:] == ['-m', 'dblr_plugin'] or (bool(before) and Path(before[-1]).stem == 'dblr')


if not _program_is_doctor():
    try:
        register()
    except Exception as error:  # mismatched packages raise RuntimeError, OSError, AttributeError and more
        raise ImportError(
            f"dblr_plugin cannot be imported ({type(error).__name__}: {error}); run 'dblr doctor', which finds the "
            'cause and names the cure'
        ) from error
