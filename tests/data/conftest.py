"""Small data sets of image files whose pixels hold their frame and position."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

MakeTree = Callable[..., Path]


def frame_image(size: tuple[int, int], mark: int) -> np.ndarray:
    """A BGR frame: blue is ``mark``, green the row, red the column."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = mark
    image[..., 1] = np.arange(height)[:, None]
    image[..., 2] = np.arange(width)
    return image


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Writes ``tmp_path/name/<clip>/<frame>``; the frames of all clips are marked ``first_mark``, +1, +2, ..."""

    def make(
        name: str,
        clips: dict[str, int],
        size: tuple[int, int] = (24, 32),
        suffix: str = '.png',
        first_mark: int = 0,
    ) -> Path:
        mark = first_mark
        for clip, count in clips.items():
            folder = tmp_path / name / clip
            folder.mkdir(parents=True)
            for index in range(count):
                assert cv2.imwrite(str(folder / f'{index:08d}{suffix}'), frame_image(size, mark))
                mark += 1
        return tmp_path / name

    return make


@pytest.fixture
def pair(make_tree: MakeTree) -> tuple[Path, Path]:
    """Folders (lq, gt) with the clips alpha (9 frames) and beta (6); lq is marked 0 to 14, gt 100 to 114."""
    clips = {'alpha': 9, 'beta': 6}
    return make_tree('lq', clips), make_tree('gt', clips, first_mark=100)
