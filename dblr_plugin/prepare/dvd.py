"""VideoDeblurring (DVD) by Su et al., CVPR 2017: 71 videos with ground truth, 22 scenes without.

``quantitative_datasets/<video>/{input,GT}/00000.jpg`` and ``qualitative_datasets/<scene>/input/``. The published split
is below. Numbers and sizes are read from the files, as videos differ: IMG_0009 is numbered from 00030, C0036 and C0041
are 1080x1920 (h x w), IMG_0051 and IMG_0053 are portrait.
"""

from __future__ import annotations

from pathlib import Path

from dblr_plugin.prepare.plan import Clip, Plan, existing, subfolders, unknown_folders

__all__ = ['TEST', 'TRAIN', 'plan', 'plan_qualitative']

# in the published order, 1 to 10
TEST = dict.fromkeys(
    (
        'IMG_0030', 'IMG_0049', 'IMG_0021', '720p_240fps_2', 'IMG_0032',
        'IMG_0033', 'IMG_0031', 'IMG_0003', 'IMG_0039', 'IMG_0037',
    ),
    100,
)  # fmt: skip

TRAIN = {
    **{f'720p_240fps_{number}': 100 for number in (1, 3, 5, 6)},
    'C0036': 63, 'C0041': 229,
    'GOPR9633': 35, 'GOPR9636': 48, 'GOPR9641': 137, 'GOPR9642': 83,
    'GOPR9643': 97, 'GOPR9645': 65, 'GOPR9648': 88, 'GOPR9652': 71,
    **{
        f'IMG_{number:04d}': 100
        for number in (
            1, 4, 5, 8, 10, 11, 12, 13, 14, 15, 17, 19, 22, 23, 24, 25, 26, 28, 29, 34, 35, 36, 38,
            40, 41, 42, 43, 44, 46, 47, 51, 53, 54, 55, 56, 58,
        )
    },
    'IMG_0009': 41, 'IMG_0045': 61, 'IMG_0150': 50, 'IMG_0151': 60, 'IMG_0153': 120, 'IMG_0155': 78,
    'IMG_0164': 46, 'IMG_0173': 70, 'IMG_0180': 50, 'IMG_0183': 113, 'IMG_0200': 103,
}  # fmt: skip

SCENES = 22


def plan(src: Path) -> Plan:
    """Plans the quantitative subset, 61 training and 10 test videos; ``src`` is its folder or the one above."""
    root = existing(src, 'quantitative_datasets')
    clips = tuple(
        Clip(part, video, root / video / 'input', root / video / 'GT', frames)
        for part, videos in (('train', TRAIN), ('test', TEST))
        for video, frames in videos.items()
    )
    layout = 'quantitative_datasets/<video>/{input,GT}/00000.jpg'
    return Plan('dvd', '', root, layout, clips, unknown=tuple(unknown_folders(root, TRAIN | TEST)))


def plan_qualitative(src: Path) -> Plan:
    """Plans the qualitative subset, 22 scenes to look at; ``src`` is its folder or the one above."""
    root = existing(src, 'qualitative_datasets')
    clips = tuple(Clip('test', scene, root / scene / 'input', None) for scene in subfolders(root))
    layout = 'qualitative_datasets/<scene>/input/00000.jpg'
    return Plan('dvd-qualitative', '', root, layout, clips, totals={'test': SCENES})
