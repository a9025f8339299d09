"""Photographs for synthetic motion."""

from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='session')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sharp colour images, in a folder and a subfolder, and one that is too small."""
    root = tmp_path_factory.mktemp('pictures')
    (root / 'more').mkdir()
    for number, (name, size) in enumerate(
        [('a.png', (80, 96)), ('b.jpg', (96, 80)), ('more/c.png', (100, 100)), ('small.png', (20, 90))]
    ):
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(root / name), cv2.GaussianBlur(noise, (0, 0), 1.2))
    return root
