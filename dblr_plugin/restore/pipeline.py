"""Decodes, restores and encodes at the same time, from a source to a sink."""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from tqdm import tqdm

from dblr_plugin.restore.comparison import Layout, compared
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.threads import BackgroundWriter, prefetch
from dblr_plugin.video import Frame, Sink, Source

__all__ = ['restore_media']

_log = logging.getLogger(__name__)


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
            _tell_kept(source, sink)
        raise
    return seconds


def _tell_kept(source: Source, sink: Sink) -> None:
    _log.warning('ended early; in: %s; kept: %s; --resume goes on from there', source.extent(), sink.extent())


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
