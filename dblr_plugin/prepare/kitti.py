"""Blurred KITTI by Pan et al., CVPR 2017: 199 scenes of three frames from two cameras, for testing only.

``{blur,sharp}/{image_2,image_3}/000005_10.png``: the frames 09, 10 and 11 of scene 000005; image_2 is the left camera
and image_3 the right one. The blurry frames are the authors'; the sharp ones are those of KITTI's scene flow
benchmark (multi-view extension). Their sizes vary around 1242x375.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from dblr_plugin.data.images import is_image
from dblr_plugin.prepare.plan import Clip, Plan, existing

__all__ = ['plan']

CAMERAS = {'left': 'image_2', 'right': 'image_3'}

_SCENES = 199
_FRAMES = 3


def plan(src: Path) -> Plan:
    """Plans a clip for each camera of each scene, such as 000005_left with the frames 09, 10, 11."""
    root = existing(src, 'KITTI')
    scenes = sorted({scene for camera in CAMERAS.values() for scene in _scenes(root / 'blur' / camera)})
    clips = tuple(
        Clip(
            'test',
            f'{scene}_{side}',
            root / 'blur' / camera,
            root / 'sharp' / camera,
            _FRAMES,
            stem=rf'{re.escape(scene)}_(09|10|11)',  # the multi-view extension has more frames of each scene
        )
        for scene in scenes
        for side, camera in CAMERAS.items()
    )
    layout = '{blur,sharp}/{image_2,image_3}/000005_10.png'
    return Plan('kitti', '', root, layout, clips, totals={'test': len(CAMERAS) * _SCENES})


def _scenes(folder: Path) -> set[str]:
    """Returns the scenes that a camera's folder has frames of; none when it does not exist."""
    names = filter(is_image, os.listdir(folder)) if folder.is_dir() else ()
    return {name.split('_')[0] for name in names if '_' in name}
