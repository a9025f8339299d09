"""Data sets in their authors' exact layouts, complete where counts matter: many hard links to a few tiny images."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import dblr
from shared import made_once
from source_trees import Picture, link_frames, numbered


@pytest.fixture(scope='session')
def picture(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """Returns a function that writes an image of a size (h, w), format and grey value, each only once."""
    root = tmp_path_factory.mktemp('pictures')

    def make(size: tuple[int, int] = (12, 16), suffix: str = '.png', value: int = 90) -> Path:
        path = root / f'{size[0]}_{size[1]}_{value}{suffix}'
        if not path.exists():
            assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
        return path

    return make


@pytest.fixture(scope='session')
def dvd(request: pytest.FixtureRequest, picture: Picture) -> Path:
    """All 6708 pairs of DVD, in its numbering and shapes: landscape, larger, portrait. Do not write to it."""
    return made_once(request, 'dvd', partial(_write_dvd, picture))


def _write_dvd(picture: Picture, root: Path) -> Path:
    from dblr_plugin.prepare.data_sets import DVD_TEST, DVD_TRAIN

    shapes = {'C0036': (18, 32), 'C0041': (18, 32), 'IMG_0051': (16, 12), 'IMG_0053': (16, 12)}
    for video, count in {**DVD_TRAIN, **DVD_TEST}.items():
        names = numbered(count, digits=5, first=30 if video == 'IMG_0009' else 0, suffix='.jpg')
        for value, side in ((80, 'input'), (120, 'GT')):
            image = picture(shapes.get(video, (12, 16)), '.jpg', value)
            link_frames(image, root / 'quantitative_datasets' / video / side, names)
    return root


@pytest.fixture(scope='session')
def dvd_run(request: pytest.FixtureRequest, dvd: Path) -> tuple[Path, subprocess.CompletedProcess]:
    """The complete DVD prepared by the command: the tree, and the finished process. Do not write to it."""

    def prepare(folder: Path) -> tuple[Path, subprocess.CompletedProcess]:
        return folder / 'datasets/DVD', dblr('prepare', 'dvd', dvd, 'datasets/DVD', cwd=folder)

    return made_once(request, 'prepared', prepare)


@pytest.fixture
def pairs(tmp_path: Path, picture: Picture) -> Path:
    """A small source of three clips, ``<clip>/{blur,sharp}/00000000.png``: a and b of 8 frames, c of 6."""
    root = tmp_path / 'source'
    for clip, count in (('a', 8), ('b', 8), ('c', 6)):
        for value, side in ((80, 'blur'), (120, 'sharp')):
            link_frames(picture(value=value), root / clip / side, numbered(count))
    return root
