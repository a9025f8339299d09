"""Decodes, restores and encodes at the same time, from a source to a sink; calibrates int8 for it; sides compared."""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm import tqdm

from dblr_plugin.data.windows import spread
from dblr_plugin.restore.openvino_forward import WINDOWS
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.threads import BackgroundWriter, prefetch
from dblr_plugin.video import Frame, Sink, Source, open_source

__all__ = ['Layout', 'calibrate', 'compared', 'restore_media', 'sample_windows']

_log = logging.getLogger(__name__)

Layout = Literal['beside', 'stacked']

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE_SHARE = 24  # a line of text is this part of a picture's height, and no smaller than can be read
_LEAST_LINE = 10  # pixels
_LABELS = ('input', 'restored')


def compared(blurry: np.ndarray, restored: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns both pictures in one, each whole and with a label in its upper left corner.

    Args:
        blurry: RGB ``(h, w, 3)``, uint8 or uint16.
        restored: The same.
        layout: ``beside`` gives ``(h, 2 w, 3)``, ``stacked`` gives ``(2 h, w, 3)``.
    """
    pictures = [_labelled(picture, text) for picture, text in zip((blurry, restored), _LABELS, strict=True)]
    return np.concatenate(pictures, axis=1 if layout == 'beside' else 0)


def _labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """Writes white text on black into a corner; a picture that is too small for it stays as it is."""
    line = max(_LEAST_LINE, picture.shape[0] // _LINE_SHARE)
    scale = cv2.getFontScaleFromHeight(_FONT, line)
    thickness = max(1, line // 12)
    (width, height), base = cv2.getTextSize(text, _FONT, scale, thickness)
    label = np.zeros((height + 2 * base, width + 2 * base, 3), np.uint8)
    cv2.putText(label, text, (base, height + base), _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    if label.shape[0] > picture.shape[0] // 2 or label.shape[1] > picture.shape[1]:
        return picture
    marked = picture.copy()
    factor = np.iinfo(picture.dtype).max // 255
    marked[: label.shape[0], : label.shape[1]] = label.astype(picture.dtype) * factor
    return marked


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


def restore_media(
    restorer: VideoRestorer,
    source: Source,
    sink: Sink,
    compare: Layout | None = None,
    progress: bool = True,
    done: int = 0,
) -> array[float]:
    """Restores all pictures of a source.

    Args:
        restorer: Restores them.
        source: Where they come from.
        sink: Where they go; it is finished, or after an error or Ctrl-C abandoned.
        compare: Whether each picture shows the blurry and the restored one, and how.
        progress: Whether to show a progress bar, with pictures a second and the time left.
        done: How many pictures the sink has already; the result is that of restoring all of them in one go.

    Returns:
        Of each, the seconds from when it was decoded and taken to when it was restored. A causal network's latency;
        others wait for later pictures in between.

    Raises:
        DBLRError: If the source cannot be decoded or the sink cannot be written.
    """
    seconds = array('d')
    try:
        with (
            BackgroundWriter(sink.write) as write,
            tqdm(total=source.count, initial=done, unit='frame', disable=not progress) as bar,
        ):
            for blurry, pixels, latency in _restored_from(restorer, source, done):
                seconds.append(latency)
                shown = compared(blurry.pixels, pixels, compare) if compare else pixels
                write(replace(blurry, pixels=shown))
                bar.update()
        sink.finish()
    except BaseException:
        if sink.abandon():
            _warn_of_kept(source, sink)
        raise
    return seconds


def _warn_of_kept(source: Source, sink: Sink) -> None:
    _log.warning('ended early; in: %s; kept: %s; --resume continues from there', source.extent(), sink.extent())


def _restored_from(restorer: VideoRestorer, source: Source, done: int) -> Iterator[tuple[Frame, np.ndarray, float]]:
    """Yields what :func:`_restored` does, behind the pictures that are done."""
    if not done:
        return _restored(restorer, source)
    lead = min(done, restorer.lead)
    source.skip(done - lead)
    return islice(_restored(restorer, source), lead, None)


def _restored(restorer: VideoRestorer, source: Source) -> Iterator[tuple[Frame, np.ndarray, float]]:
    """Each picture with its restored pixels and the seconds that they took."""
    waiting: deque[tuple[Frame, float]] = deque()

    def frames() -> Iterator[np.ndarray]:
        for picture in prefetch(source):
            waiting.append((picture, time.perf_counter()))
            yield picture.pixels

    for pixels in restorer.restore(frames()):
        picture, start = waiting.popleft()
        yield picture, pixels, time.perf_counter() - start
