"""Brings data sets into the one layout that training and testing read; checked first, and resumable."""

from dblr_plugin.lazy import import_on_demand

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
]

# on demand, because the choices that `dblr prepare --help` lists stand in modules of this package
__getattr__ = import_on_demand(
    __name__,
    {
        'LMDB': 'dblr_plugin.prepare.databases',
        'TILES': 'dblr_plugin.prepare.databases',
        'BlurSettings': 'dblr_plugin.prepare.blur_settings',
        'Clip': 'dblr_plugin.prepare.plan',
        'DatabaseKind': 'dblr_plugin.prepare.databases',
        'MotionSettings': 'dblr_plugin.prepare.motion',
        'Plan': 'dblr_plugin.prepare.plan',
        'Prepared': 'dblr_plugin.prepare.layout',
        'prepare_layout': 'dblr_plugin.prepare.layout',
        'prepare_motion': 'dblr_plugin.prepare.motion',
        'prepare_video': 'dblr_plugin.prepare.video',
    },
)
