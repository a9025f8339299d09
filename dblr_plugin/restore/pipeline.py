"""From a source to a sink: frames are decoded, restored and encoded at the same time."""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.threads import BackgroundWriter, prefetch
from dblr_plugin.video import Frame, Sink, Source

__all__ = ['restore_media']


def restore_media(
    restorer: VideoRestorer, source: Source, sink: Sink, compare: bool = False, progress: bool = True
) -> array[float]:
    """Restores all pictures of a source.

    Args:
        restorer: Restores them.
        source: Where they come from.
        sink: Where they go; it is finished, or after an error or Ctrl-C abandoned.
        compare: Whether each picture shows its blurry left half and its restored right half.
        progress: Whether to show a progress bar, with pictures a second and the time left.

    Returns:
        Of each, the seconds from when it was decoded and taken to when it was restored. A causal network's latency;
        others wait for later pictures in between.

    Raises:
        DBLRError: If the source cannot be decoded or the sink cannot be written.
    """
    seconds = array('d')
    try:
        with BackgroundWriter(sink.write) as write, tqdm(total=source.count, unit='frame', disable=not progress) as bar:
            for blurry, pixels, latency in _restored(restorer, source):
                seconds.append(latency)
                write(replace(blurry, pixels=_split(blurry.pixels, pixels) if compare else pixels))
                bar.update()
        sink.finish()
    except BaseException:
        if sink.abandon():
            logging.getLogger('dblr_plugin').warning('The first %d frames are kept.', len(seconds))
        raise
    return seconds


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


def _split(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The left half of one picture beside the right half of another, with a white line between them."""
    middle = left.shape[1] // 2
    both = np.concatenate([left[:, :middle], right[:, middle:]], axis=1)
    both[:, max(0, middle - 1) : middle + 1] = np.iinfo(both.dtype).max
    return both
