"""Calibrates int8 for a video or folder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from dblr_plugin.data.windows import spread
from dblr_plugin.restore.int8_forward import WINDOWS
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.video import Source, open_source

__all__ = ['calibrate', 'sample_windows']


def calibrate(
    restorer: VideoRestorer,
    path: str | Path,
    source: Source,
    start: str | None = None,
    end: str | None = None,
    scale_down: float = 1,
) -> None:
    """Calibrates int8 for an input, whatever it was calibrated for before, where it may be used.

    The frames follow from the input alone, so that a run that goes on with it quantises as the one that was stopped.
    Of a pipe, which can be read once, :meth:`VideoRestorer.restore` takes the first frames.

    Args:
        restorer: The network.
        path: What the source was opened from, and so are ``start``, ``end`` and ``scale_down``.
        source: Says how many frames there are; it is not read.
    """
    if not restorer.may_use_int8 or Path(path).is_fifo():
        return
    if source.count and start is None and end is None:
        restorer.calibrate(sample_windows(path, source, restorer.traits.num_frame, scale_down))
        return
    with open_source(path, start, end, scale_down) as part:
        restorer.calibrate_on_first(frame.pixels for frame in part)


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
