"""Video deblurring for BasicSR: importing this package registers every network, loss, data set and model."""

from dblr_plugin import compat

compat.prepare_import()

from dblr_plugin import archs, data, hooks, losses, models  # noqa: E402
from dblr_plugin.version import __version__  # noqa: E402

compat.repair_distributed()
hooks.install()

__all__ = ['__version__', 'archs', 'data', 'losses', 'models']
