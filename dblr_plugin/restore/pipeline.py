"""Decodes, restores and encodes concurrently, from a source to a sink; int8 calibration; comparison views."""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm import tqdm

from dblr_plugin.console import quiet
from dblr_plugin.data.windows import spread
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.openvino_forward import WINDOWS
from dblr_plugin.restore.video_restorer import FIRST_FRAMES, VideoRestorer
from dblr_plugin.threads import BackgroundWriter, prefetch
from dblr_plugin.video import Frame, Sink, Source, open_source

__all__ = ['Layout', 'calibrate', 'compared', 'restore_media', 'sample_windows']

_log = logging.getLogger(__name__)

Layout = Literal['beside', 'stacked']

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LINE_SHARE = 24  # a line of text is 1/24 of a picture's height, but at least _LEAST_LINE to stay readable
_LEAST_LINE = 10  # pixels
_LABELS = ('input', 'restored')


def compared(blurry: np.ndarray, restored: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns both pictures in one, uncropped, each with a label in its upper left corner.

    Args:
        blurry: RGB ``(h, w, 3)``, uint8 or uint16.
        restored: The same shape and type.
        layout: ``beside`` gives ``(h, 2 w, 3)``, ``stacked`` gives ``(2 h, w, 3)``.
    """
    pictures = [_labelled(picture, text) for picture, text in zip((blurry, restored), _LABELS, strict=True)]
    return np.concatenate(pictures, axis=1 if layout == 'beside' else 0)


def _labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """Writes white text on black into the corner; a picture too small for it is returned unchanged."""
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
    """Calibrates int8 for an input if int8 may be used, replacing any earlier calibration.

    The choice of frames depends on the input alone, so a resumed run quantises like the interrupted one. ``source`` was
    opened from ``path`` with the same ``start``, ``end`` and ``scale_down``; it is not read.
    """
    if not restorer.may_use_int8:
        return
    if source.likely_count and start is None and end is None:
        restorer.calibrate(sample_windows(path, source, restorer.traits.num_frame, scale_down))
        return
    with quiet(), open_source(path, start, end, scale_down) as part:
        first = [frame.pixels for frame in islice(part, FIRST_FRAMES)]
    restorer.calibrate_on_first(iter(first))


def sample_windows(
    path: str | Path, source: Source, num_frame: int, scale_down: float = 1
) -> Iterator[list[np.ndarray]]:
    """Yields runs of consecutive frames spread over the input, by seeking; the source itself is not read.

    If not even about how many frames there are is known before decoding, they are spread over the first 24. Runs that
    cannot be read, such as those behind the end of a truncated video, are left out, without a message: reading the
    source itself gives one. It was opened from all of ``path`` with the same ``scale_down``.
    """
    info = getattr(source, 'info', None)  # videos have one, and positions in seconds
    count = source.likely_count or FIRST_FRAMES
    last = max(count - 2 * num_frame, 0)  # videos may end slightly before their stated length
    for number in spread(range(last + 1), WINDOWS):
        start, end = (number, number + num_frame) if info is None else (number / info.rate, None)
        try:
            with quiet(), open_source(path, start, end, scale_down) as part:
                frames = [frame.pixels for frame in islice(part, num_frame)]
        except DBLRError:
            continue
        yield frames + frames[-1:] * (num_frame - len(frames))


def restore_media(
    restorer: VideoRestorer,
    source: Source,
    sink: Sink,
    compare: Layout | None = None,
    progress: bool = True,
    done: int = 0,
) -> array[float]:
    """Restores all frames of a source.

    Args:
        restorer: The network.
        source: The input.
        sink: The output; it is finished, or abandoned after an error or Ctrl-C.
        compare: How to show the blurry next to the restored frame; None for the restored frame alone.
        progress: Whether to show a progress bar, with frames per second and the time left.
        done: Number of frames already in the sink; the result is the same as that of an uninterrupted run.

    Returns:
        For each frame, the seconds from when it was decoded and taken until it was restored. For causal networks this
        is the latency; others wait for later frames in between.

    Raises:
        DBLRError: If the source cannot be decoded or the sink cannot be written.
    """
    seconds = array('d')
    lead = restorer.lead(done) if done else 0
    if done:
        source.skip(done - lead)
    try:
        with (
            BackgroundWriter(sink.write) as write,
            tqdm(total=source.count, initial=done, unit='frame', disable=not progress) as bar,
            # whose end is also that of decoding: FFmpeg crashes if another thread closes the source meanwhile
            closing(_restored(restorer, source)) as frames,
        ):
            for blurry, pixels, latency in islice(frames, lead, None):
                seconds.append(latency)
                shown = compared(blurry.pixels, pixels, compare) if compare else pixels
                write(replace(blurry, pixels=shown))
                bar.update()
        sink.finish()
    except BaseException:
        if sink.abandon():
            _log.warning('ended early; in: %s; kept: %s; --resume continues it', source.extent(), sink.extent())
        raise
    return seconds


def _restored(restorer: VideoRestorer, source: Source) -> Generator[tuple[Frame, np.ndarray, float]]:
    """Yields each frame with its restored pixels and latency in seconds; nothing is decoded once it has ended."""
    waiting: deque[tuple[Frame, float]] = deque()

    def frames() -> Iterator[np.ndarray]:
        for picture in pictures:
            waiting.append((picture, time.perf_counter()))
            yield picture.pixels

    with closing(prefetch(source)) as pictures:
        for pixels in restorer.restore(frames()):
            picture, start = waiting.popleft()
            yield picture, pixels, time.perf_counter() - start
