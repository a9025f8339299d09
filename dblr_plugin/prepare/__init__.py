"""Brings data sets as users have them into one tree that training and testing read: planned, checked, resumable."""

from dblr_plugin.prepare.blur_settings import BlurSettings
from dblr_plugin.prepare.databases import LMDB, TILES, DatabaseKind
from dblr_plugin.prepare.layout import Prepared, prepare_layout
from dblr_plugin.prepare.motion import MotionSettings, prepare_motion
from dblr_plugin.prepare.plan import Clip, Plan
from dblr_plugin.prepare.summary import summary
from dblr_plugin.prepare.video import prepare_video

__all__ = [
    'LMDB',
    'TILES',
    'BlurSettings',
    'Clip',
    'DatabaseKind',
    'MotionSettings',
    'Plan',
    'Prepared',
    'prepare_layout',
    'prepare_motion',
    'prepare_video',
    'summary',
]
