"""BSD by Zhong et al., ECCV 2020: ``BSD_3ms24ms/{train,test}/<sequence>/{Blur,Sharp}/RGB/00000000.png``, 640x480.

Two cameras looked through one beam splitter; the exposures name the sharp one's time and the blurry one's.
"""

from __future__ import annotations

from pathlib import Path

from dblr_plugin.prepare.plan import Clip, Plan, existing, subfolders

__all__ = ['EXPOSURES', 'plan']

EXPOSURES = ('1ms8ms', '2ms16ms', '3ms24ms')

_CLIPS = {'train': 60, 'test': 20}
_FRAMES = {'train': 100, 'test': 150}


def plan(src: Path, exposure: str) -> Plan:
    """Plans 60 training and 20 test sequences of one of ``EXPOSURES``; ``src`` is its folder or the one above."""
    root = existing(src, f'BSD_{exposure}')
    clips = tuple(
        Clip(part, name, root / part / name / 'Blur/RGB', root / part / name / 'Sharp/RGB', _FRAMES[part])
        for part in _CLIPS
        for name in subfolders(root / part)
    )
    layout = f'BSD_{exposure}/{{train,test}}/<sequence>/{{Blur,Sharp}}/RGB/00000000.png'
    return Plan('bsd', exposure, root, layout, clips, totals=_CLIPS)
