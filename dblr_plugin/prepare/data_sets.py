"""The original layouts of the supported datasets: paths of the clips, and expected numbers of clips and frames.

Each ``plan_...`` function returns the :class:`Plan` of a dataset. Importing this file does not import torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = [
    'BSD_EXPOSURES', 'DVD_SCENES', 'DVD_TEST', 'DVD_TRAIN', 'GOPRO_BLURS', 'GOPRO_TEST', 'GOPRO_TRAIN', 'PARTS',
    'REDS_BLURS', 'Clip', 'Plan', 'plan_bsd', 'plan_dvd', 'plan_dvd_qualitative', 'plan_gopro', 'plan_kitti',
    'plan_reds',
]  # fmt: skip

PARTS = ('train', 'test')


@dataclass(frozen=True)
class Clip:
    """A clip of the tree, and the source folders of its frames.

    Args:
        part: ``train`` or ``test``.
        name: The clip's folder in the tree.
        lq: Folder of the blurry frames.
        gt: Folder of the sharp frames, or None without ground truth.
        frames: Expected number of frames, or None if not published.
        stem: Regular expression for the clip's file names without suffix; its first group is the frame's name.
    """

    part: str
    name: str
    lq: Path
    gt: Path | None
    frames: int | None = None
    stem: str = '(.+)'

    @property
    def folders(self) -> dict[str, Path]:
        """``lq`` (and ``gt`` if there is ground truth) -> folder."""
        return {'lq': self.lq} if self.gt is None else {'lq': self.lq, 'gt': self.gt}


@dataclass(frozen=True)
class Plan:
    """A dataset in its original layout.

    Args:
        kind: The dataset's name on the command line.
        variant: The chosen version, if the dataset has several versions of each frame; otherwise ``''``.
        source: The root folder of the dataset.
        layout: The layout of the files, for messages.
        clips: All expected clips; if their names are not published, the clips found.
        totals: Part -> expected number of clips, if their names are not published.
        unknown: Folders among the clips that are not clips of the dataset.
    """

    kind: str
    variant: str
    source: Path
    layout: str
    clips: tuple[Clip, ...]
    totals: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[Path, ...] = ()


def _existing(src: Path, folder: str) -> Path:
    """Returns ``src/folder`` if it exists, otherwise ``src``, so that users can give either."""
    if not src.is_dir():
        reason = 'is not a folder; unpack it first' if src.exists() else 'does not exist; check the path'
        raise DBLRError(f'{src} {reason}')
    return src / folder if (src / folder).is_dir() else src


def _subfolders(folder: Path) -> list[str]:
    from dblr_plugin.data.images import subfolders  # here, because the package imports torch

    return subfolders(folder) if folder.is_dir() else []


def _unknown_folders(folder: Path, known: Mapping[str, object]) -> list[Path]:
    """Returns the folders in ``folder`` with names that are not in ``known``."""
    return [folder / name for name in _subfolders(folder) if name not in known]


# VideoDeblurring (DVD) by Su et al., CVPR 2017: 71 videos with ground truth, 22 scenes without.
#
# Frame numbers and sizes are read from the files, as they vary: IMG_0009 is numbered from 00030, C0036 and C0041 are
# 1080x1920 (h x w), IMG_0051 and IMG_0053 are portrait.

# the published split, in the published order, 1 to 10
DVD_TEST = dict.fromkeys(
    (
        'IMG_0030', 'IMG_0049', 'IMG_0021', '720p_240fps_2', 'IMG_0032',
        'IMG_0033', 'IMG_0031', 'IMG_0003', 'IMG_0039', 'IMG_0037',
    ),
    100,
)  # fmt: skip

DVD_TRAIN = {
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

DVD_SCENES = 22


def plan_dvd(src: Path) -> Plan:
    """Plans the quantitative subset, 61 training and 10 test videos; ``src`` is its folder or the parent folder."""
    root = _existing(src, 'quantitative_datasets')
    clips = tuple(
        Clip(part, video, root / video / 'input', root / video / 'GT', frames)
        for part, videos in (('train', DVD_TRAIN), ('test', DVD_TEST))
        for video, frames in videos.items()
    )
    layout = 'quantitative_datasets/<video>/{input,GT}/00000.jpg'
    return Plan('dvd', '', root, layout, clips, unknown=tuple(_unknown_folders(root, DVD_TRAIN | DVD_TEST)))


def plan_dvd_qualitative(src: Path) -> Plan:
    """Plans the qualitative subset, 22 scenes without ground truth; ``src`` is its folder or the parent folder."""
    root = _existing(src, 'qualitative_datasets')
    clips = tuple(Clip('test', scene, root / scene / 'input', None) for scene in _subfolders(root))
    layout = 'qualitative_datasets/<scene>/input/00000.jpg'
    return Plan('dvd-qualitative', '', root, layout, clips, totals={'test': DVD_SCENES})


# GoPro by Nah et al., CVPR 2017.

GOPRO_BLURS = {
    'blur_gamma': "averaged in linear light and encoded with gamma 2.2: the authors' standard",
    'blur': 'averaged without regard to gamma',
}

# frames per sequence; the sums match the published totals, 2103 and 1111
GOPRO_TRAIN = {
    'GOPR0372_07_00': 100, 'GOPR0372_07_01': 75, 'GOPR0374_11_00': 150, 'GOPR0374_11_01': 80,
    'GOPR0374_11_02': 100, 'GOPR0374_11_03': 48, 'GOPR0378_13_00': 110, 'GOPR0379_11_00': 100,
    'GOPR0380_11_00': 60, 'GOPR0384_11_01': 100, 'GOPR0384_11_02': 100, 'GOPR0384_11_03': 100,
    'GOPR0384_11_04': 100, 'GOPR0385_11_00': 100, 'GOPR0386_11_00': 100, 'GOPR0477_11_00': 80,
    'GOPR0857_11_00': 100, 'GOPR0868_11_01': 100, 'GOPR0868_11_02': 100, 'GOPR0871_11_01': 100,
    'GOPR0881_11_00': 100, 'GOPR0884_11_00': 100,
}  # fmt: skip
GOPRO_TEST = {
    'GOPR0384_11_00': 100, 'GOPR0384_11_05': 100, 'GOPR0385_11_01': 100, 'GOPR0396_11_00': 100,
    'GOPR0410_11_00': 134, 'GOPR0854_11_00': 100, 'GOPR0862_11_00': 77, 'GOPR0868_11_00': 100,
    'GOPR0869_11_00': 100, 'GOPR0871_11_00': 100, 'GOPR0881_11_01': 100,
}  # fmt: skip


def plan_gopro(src: Path, blur: str) -> Plan:
    """Plans 22 training and 11 test sequences with one of ``GOPRO_BLURS``; ``src``: GOPRO_Large or its parent."""
    root = _existing(src, 'GOPRO_Large')
    parts = {'train': GOPRO_TRAIN, 'test': GOPRO_TEST}
    clips = tuple(
        Clip(part, name, root / part / name / blur, root / part / name / 'sharp', frames)
        for part, sequences in parts.items()
        for name, frames in sequences.items()
    )
    unknown = tuple(path for part, sequences in parts.items() for path in _unknown_folders(root / part, sequences))
    layout = f'GOPRO_Large/{{train,test}}/<sequence>/{{{blur},sharp}}/000047.png'
    return Plan('gopro', blur, root, layout, clips, unknown=unknown)


# REDS by Nah et al., CVPRW 2019. The validation clips serve as the test set, as the official one's ground truth is not
# public.

REDS_BLURS = {'blur': 'motion blur', 'blur_comp': 'motion blur and video compression'}

_REDS_CLIPS = {'train': 240, 'val': 30}
_REDS_FRAMES = 100


def plan_reds(src: Path, blur: str) -> Plan:
    """Plans 240 training and 30 test clips with one of ``REDS_BLURS``; ``src`` contains train/ and val/."""
    root = _existing(src, 'REDS')
    clips: list[Clip] = []
    unknown: list[Path] = []
    for theirs, count in _REDS_CLIPS.items():
        lq, gt = root / theirs / f'{theirs}_{blur}', root / theirs / f'{theirs}_sharp'
        names = dict.fromkeys(f'{number:03d}' for number in range(count))
        part = 'train' if theirs == 'train' else 'test'
        clips += [Clip(part, name, lq / name, gt / name, _REDS_FRAMES) for name in names]
        unknown += [*_unknown_folders(lq, names), *_unknown_folders(gt, names)]
    layout = f'{{train,val}}/{{train,val}}_{{{blur},sharp}}/000/00000000.png'
    return Plan('reds', blur, root, layout, tuple(clips), unknown=tuple(unknown))


# BSD by Zhong et al., ECCV 2020: 640x480, recorded by two cameras through a beam splitter; the names give the exposure
# times of the sharp and the blurry camera.

BSD_EXPOSURES = ('1ms8ms', '2ms16ms', '3ms24ms')

_BSD_CLIPS = {'train': 60, 'test': 20}
_BSD_FRAMES = {'train': 100, 'test': 150}


def plan_bsd(src: Path, exposure: str) -> Plan:
    """Plans 60 training and 20 test sequences of one of ``BSD_EXPOSURES``; ``src`` is its folder or the parent.

    Raises:
        DBLRError: ``src`` does not exist, or is the folder of another exposure.
    """
    root = _existing(src, f'BSD_{exposure}')
    others = [other for other in BSD_EXPOSURES if other != exposure]
    if named := next((other for other in others if root.resolve().name == f'BSD_{other}'), None):
        raise DBLRError(
            f'{root} is the folder of another exposure; give --exposure {named}, or the folder of {exposure}'
        )
    clips = tuple(
        Clip(part, name, root / part / name / 'Blur/RGB', root / part / name / 'Sharp/RGB', _BSD_FRAMES[part])
        for part in _BSD_CLIPS
        for name in _subfolders(root / part)
    )
    layout = f'BSD_{exposure}/{{train,test}}/<sequence>/{{Blur,Sharp}}/RGB/00000000.png'
    return Plan('bsd', exposure, root, layout, clips, totals=_BSD_CLIPS)


# Blurred KITTI by Pan et al., CVPR 2017: 199 scenes of three frames from two cameras, for testing only.
# The blurry frames are the authors' own; the sharp ones come from KITTI's scene flow benchmark (multi-view extension).
# Sizes vary around 1242x375.

KITTI_CAMERAS = {'left': 'image_2', 'right': 'image_3'}

_KITTI_SCENES = 199
_KITTI_FRAMES = 3


def plan_kitti(src: Path) -> Plan:
    """Plans a clip for each camera of each scene, such as 000005_left with frames 09, 10, 11."""
    root = _existing(src, 'KITTI')
    scenes = sorted({scene for camera in KITTI_CAMERAS.values() for scene in _kitti_scenes(root / 'blur' / camera)})
    clips = tuple(
        Clip(
            'test',
            f'{scene}_{side}',
            root / 'blur' / camera,
            root / 'sharp' / camera,
            _KITTI_FRAMES,
            stem=rf'{re.escape(scene)}_(09|10|11)',  # the multi-view extension has more frames per scene
        )
        for scene in scenes
        for side, camera in KITTI_CAMERAS.items()
    )
    layout = '{blur,sharp}/{image_2,image_3}/000005_10.png'
    return Plan('kitti', '', root, layout, clips, totals={'test': len(KITTI_CAMERAS) * _KITTI_SCENES})


def _kitti_scenes(folder: Path) -> set[str]:
    """Returns the scenes in a camera's folder; an empty set if it does not exist."""
    from dblr_plugin.data.images import is_image  # here, because the package imports torch

    names = filter(is_image, os.listdir(folder)) if folder.is_dir() else ()
    return {name.split('_')[0] for name in names if '_' in name}
