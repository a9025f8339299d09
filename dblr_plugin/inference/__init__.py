"""The old place of ``inference.video_restorer.VideoRestorer``, which version 0.1's README named.

It goes with the next release.
"""

import sys
import warnings

from dblr_plugin.restore.video_restorer import VideoRestorer

__all__ = ['VideoRestorer']

sys.modules[f'{__name__}.video_restorer'] = sys.modules[__name__]
warnings.warn('import VideoRestorer from dblr_plugin instead', DeprecationWarning, stacklevel=2)
