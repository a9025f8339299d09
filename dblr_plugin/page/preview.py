"""A clip restored for looking at: before and after as every browser shows them, and the restored file itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from dblr_plugin.data.images import is_image
from dblr_plugin.restore.pipeline import restore_media
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.video import Frame, Sink, Source, open_sink, open_source
from dblr_plugin.video.video_sink import VideoSink
from dblr_plugin.video.video_source import VideoSource, open_container

__all__ = ['Preview', 'Report', 'restore_preview']

#: Told after each restored picture: how many are done, and of how many; the latter may be an estimate.
Report = Callable[[int, int], None]

# what the restored video keeps of the source's name; others become the one that every player takes
_KEPT_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv')


@dataclass(frozen=True)
class Preview:
    """What the page shows and offers.

    Attributes:
        before: The clip as it came, an MP4 without sound or a PNG.
        after: The same restored.
        download: The restored clip in full, with sound, depth and chroma of the original.
        aspect: Width by height, as shown.
        times: When each picture of ``before`` and ``after`` is shown, in seconds; empty for an image.
    """

    before: Path
    after: Path
    download: Path
    aspect: float
    times: list[float]


def restore_preview(
    restorer: VideoRestorer, clip: Path, folder: Path, start: Fraction, length: Fraction | None, report: Report
) -> Preview:
    """Restores a part of a video, or an image.

    Args:
        restorer: Restores it.
        clip: The file.
        folder: Where the three files are written.
        start: Seconds into a video.
        length: Seconds from there; None for all that follow.
        report: Called after each picture; what it raises ends the work.

    Raises:
        DBLRError: If the clip cannot be read, or the files cannot be written.
    """
    if is_image(clip.name):
        return _restore_image(restorer, clip, folder, report)
    end = None if length is None else float(start + length)
    with open_source(clip, float(start) or None, end) as source:
        suffix = clip.suffix.lower() if clip.suffix.lower() in _KEPT_SUFFIXES else '.mp4'
        download = folder / f'{clip.stem}_restored{suffix}'
        before, after = _PlayableSink(folder / 'before.mp4', source), _PlayableSink(folder / 'after.mp4', source)
        total = source.count or _estimated(source, start, length)
        pts = _restore(restorer, source, before, [after, open_sink(download, source)], total, report)
        times = [float(time * source.info.time_base - source.info.origin) for time in pts]
        height, width = _playable(source.size)
        return Preview(before.path, after.path, download, float(width * source.info.aspect / height), times)


def _restore_image(restorer: VideoRestorer, clip: Path, folder: Path, report: Report) -> Preview:
    before, after = folder / 'before.png', folder / 'after.png'
    download = folder / f'{clip.stem}_restored{clip.suffix}'
    with open_source(clip) as source:
        _restore(
            restorer, source, open_sink(before, source), [open_sink(p, source) for p in (after, download)], 1, report
        )
        height, width = source.size
    return Preview(before, after, download, width / height, [])


def _restore(
    restorer: VideoRestorer, source: Source, before: Sink, after: list[Sink], total: int, report: Report
) -> list[int | None]:
    """Writes each picture as it came and restored; returns their pts."""
    tapped = _Tapped(source, before)
    try:
        restore_media(_Reporting(restorer, total, report), tapped, _Several(after), progress=False)
        before.finish()
    except BaseException:
        before.abandon()
        raise
    return tapped.pts


class _Reporting:
    """A restorer that tells of each picture, before the next is begun: whoever cancels waits for one at most."""

    def __init__(self, restorer: VideoRestorer, total: int, report: Report) -> None:
        self.restorer, self.total, self.report = restorer, total, report

    def restore(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        self.report(0, self.total)
        for number, pixels in enumerate(self.restorer.restore(frames), 1):
            self.report(number, max(number, self.total))
            yield pixels


class _Tapped:
    """A source whose pictures are also written to a sink, as they are read."""

    def __init__(self, source: Source, sink: Sink) -> None:
        self.source, self.sink = source, sink
        self.count = source.count
        self.pts: list[int | None] = []

    def __iter__(self) -> Iterator[Frame]:
        for picture in self.source:
            self.sink.write(picture)
            self.pts.append(picture.pts)
            yield picture


class _Several:
    """Several sinks as one."""

    def __init__(self, sinks: list[Sink]) -> None:
        self.sinks = sinks

    def write(self, picture: Frame) -> None:
        for sink in self.sinks:
            sink.write(picture)

    def finish(self) -> None:
        for sink in self.sinks:
            sink.finish()

    def abandon(self) -> bool:
        for sink in self.sinks:
            sink.abandon()
        return False  # nobody keeps half a preview


class _PlayableSink(VideoSink):
    """Writes H.264 that every browser plays: 8 bits, 4:2:0 and so even sides, no sound of a codec it may not know."""

    def __init__(self, path: Path, source: VideoSource) -> None:
        super().__init__(path, replace(source.info, chroma='420', copied=None), high_bit_depth=False)

    def write(self, picture: Frame) -> None:
        """See :class:`Sink`; a last odd row and column are cut off."""
        height, width = _playable(picture.pixels.shape[:2])
        pixels = np.ascontiguousarray(picture.pixels[:height, :width])
        if pixels.dtype == np.uint16:
            pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
        super().write(replace(picture, pixels=pixels))


def _playable(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2 * 2, size[1] // 2 * 2


def _estimated(source: VideoSource, start: Fraction, length: Fraction | None) -> int:
    """How many pictures a part has, roughly."""
    with open_container(source.path) as container:
        seconds = [] if length is None else [length]
        if container.duration is not None:
            seconds.append(Fraction(container.duration, av.time_base) - start)
    return max(1, round(min(seconds, default=0) * source.info.rate))
