"""REDS by Nah et al., CVPRW 2019: ``train/train_{sharp,blur,blur_comp}/000/00000000.png`` and ``val/val_*``.

Its validation clips are the public test set: the authors keep the ground truth of their own.
"""

from __future__ import annotations

from pathlib import Path

from dblr_plugin.prepare.plan import Clip, Plan, existing, unknown_folders

__all__ = ['BLURS', 'plan']

BLURS = {'blur': 'motion blur', 'blur_comp': 'motion blur and video compression'}

_CLIPS = {'train': 240, 'val': 30}
_FRAMES = 100


def plan(src: Path, blur: str) -> Plan:
    """Plans 240 training and 30 test clips with one of ``BLURS``; ``src`` is the folder of train/ and val/."""
    root = existing(src, 'REDS')
    clips: list[Clip] = []
    unknown: list[Path] = []
    for theirs, count in _CLIPS.items():
        lq, gt = root / theirs / f'{theirs}_{blur}', root / theirs / f'{theirs}_sharp'
        names = dict.fromkeys(f'{number:03d}' for number in range(count))
        part = 'train' if theirs == 'train' else 'test'
        clips += [Clip(part, name, lq / name, gt / name, _FRAMES) for name in names]
        unknown += [*unknown_folders(lq, names), *unknown_folders(gt, names)]
    layout = f'{{train,val}}/{{train,val}}_{{{blur},sharp}}/000/00000000.png'
    return Plan('reds', blur, root, layout, tuple(clips), unknown=tuple(unknown))
