"""Samples windows from a whole video or folder, for the calibration of int8."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from dblr_plugin.data.windows import spread
from dblr_plugin.restore.int8_forward import WINDOWS
from dblr_plugin.video import Source, open_source

__all__ = ['sample_windows']


def sample_windows(
    path: str | Path, source: Source, num_frame: int, scale_down: float = 1
) -> Iterator[list[np.ndarray]]:
    """Yields some runs of neighbouring frames, found by seeking; the source itself is not read.

    Where only decoding tells how many frames there are, the first run alone.

    Args:
        path: What the source was opened from, the whole of it.
        source: Says how many frames there are.
        num_frame: Frames of a run.
        scale_down: As the source was opened.

    Raises:
        DBLRError: A frame cannot be read.
    """
    info = getattr(source, 'info', None)  # of videos, whose places are seconds
    last = max((source.count or 0) - 2 * num_frame, 0)  # an announced end may come a little early
    for number in spread(range(last + 1), WINDOWS):
        start = number if info is None else float(number / info.rate)
        with open_source(path, start, scale_down=scale_down) as part:
            frames = [frame.pixels for frame in islice(part, num_frame)]
        yield frames + frames[-1:] * (num_frame - len(frames))
