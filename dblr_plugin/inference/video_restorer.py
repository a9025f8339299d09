"""The old place of ``VideoRestorer``, which version 0.1's README named; it goes with the next release."""

import warnings

from dblr_plugin.restore.video_restorer import VideoRestorer

__all__ = ['VideoRestorer']

warnings.warn('import VideoRestorer from dblr_plugin instead', DeprecationWarning, stacklevel=2)
