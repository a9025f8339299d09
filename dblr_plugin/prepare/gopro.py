"""GoPro by Nah et al., CVPR 2017: ``GOPRO_Large/{train,test}/<sequence>/{blur,blur_gamma,sharp}/000047.png``."""

from __future__ import annotations

from pathlib import Path

from dblr_plugin.prepare.plan import Clip, Plan, existing, unknown_folders

__all__ = ['BLURS', 'TEST', 'TRAIN', 'plan']

BLURS = {
    'blur_gamma': "averaged in linear light and encoded with gamma 2.2: the authors' standard",
    'blur': 'averaged without regard to gamma',
}

# frames of each sequence; the sums, 2103 and 1111, are the published ones
TRAIN = {
    'GOPR0372_07_00': 100, 'GOPR0372_07_01': 75, 'GOPR0374_11_00': 150, 'GOPR0374_11_01': 80,
    'GOPR0374_11_02': 100, 'GOPR0374_11_03': 48, 'GOPR0378_13_00': 110, 'GOPR0379_11_00': 100,
    'GOPR0380_11_00': 60, 'GOPR0384_11_01': 100, 'GOPR0384_11_02': 100, 'GOPR0384_11_03': 100,
    'GOPR0384_11_04': 100, 'GOPR0385_11_00': 100, 'GOPR0386_11_00': 100, 'GOPR0477_11_00': 80,
    'GOPR0857_11_00': 100, 'GOPR0868_11_01': 100, 'GOPR0868_11_02': 100, 'GOPR0871_11_01': 100,
    'GOPR0881_11_00': 100, 'GOPR0884_11_00': 100,
}  # fmt: skip
TEST = {
    'GOPR0384_11_00': 100, 'GOPR0384_11_05': 100, 'GOPR0385_11_01': 100, 'GOPR0396_11_00': 100,
    'GOPR0410_11_00': 134, 'GOPR0854_11_00': 100, 'GOPR0862_11_00': 77, 'GOPR0868_11_00': 100,
    'GOPR0869_11_00': 100, 'GOPR0871_11_00': 100, 'GOPR0881_11_01': 100,
}  # fmt: skip


def plan(src: Path, blur: str) -> Plan:
    """Plans 22 training and 11 test sequences with one of ``BLURS``; ``src`` is GOPRO_Large or the folder above."""
    root = existing(src, 'GOPRO_Large')
    parts = {'train': TRAIN, 'test': TEST}
    clips = tuple(
        Clip(part, name, root / part / name / blur, root / part / name / 'sharp', frames)
        for part, sequences in parts.items()
        for name, frames in sequences.items()
    )
    unknown = tuple(path for part, sequences in parts.items() for path in unknown_folders(root / part, sequences))
    layout = f'GOPRO_Large/{{train,test}}/<sequence>/{{{blur},sharp}}/000047.png'
    return Plan('gopro', blur, root, layout, clips, unknown=unknown)
