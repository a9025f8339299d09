"""Restores a clip for viewing: before and after in formats that every browser shows, and the restored file itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from dblr_plugin.data.images import inspected_size, is_image
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.backends import is_out_of_memory
from dblr_plugin.restore.pipeline import calibrate, restore_media
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.video import open_sink, open_source
from dblr_plugin.video.frames import eight_bits
from dblr_plugin.video.settings import parse_time
from dblr_plugin.video.video_sink import VideoSink

__all__ = ['build', 'frame_pair', 'restore']

Build = Callable[[int], VideoRestorer]  # takes the number of frames
Report = Callable[[int, int], None]  # frames done, total frames

_MAX_PIXELS = 8192 * 4320
# suffixes that the restored video keeps; others become .mp4, which every player supports
_KEPT_SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv')


def build(report: Report, build: Build) -> None:
    """Builds the network once, to find out whether it works."""
    build(1)


def restore(report: Report, build: Build, clip: Path, folder: Path, start: str, length: str) -> tuple[int, str]:
    """Restores an image, or ``length`` of a video from ``start``; an empty ``length`` means to the end.

    Returns:
        The number of frames, and the restored file in full, with the original's sound, bit depth and chroma. Beside it
        are ``before`` and ``after``, as MP4 without sound or as PNG.

    Raises:
        DBLRError: The clip has too many pixels, cannot be read or restored, or a file cannot be written.
    """
    still = is_image(clip.name)
    part = (None, None) if still else _part(start, length)
    if still:
        _refuse_many_pixels(clip, inspected_size(clip))  # before it is decoded
    _write_preview(clip, folder / 'before', *part)
    count = 1 if still else len(_frame_times(folder))
    result = folder / f'{clip.stem}_restored{clip.suffix if still or clip.suffix.lower() in _KEPT_SUFFIXES else ".mp4"}'
    try:
        with open_source(clip, *part) as source, redirect_stdout(None):
            restorer = build(count)
            calibrate(restorer, clip, source, *part)
            restore_media(_Reporting(restorer, count, report), source, open_sink(result, source), progress=False)
    except Exception as error:
        if is_out_of_memory(error):
            raise DBLRError('memory ran out; start dblr demo-page with --tile 256 or less') from error
        raise
    _write_preview(result, folder / 'after')
    return count, str(result)


def frame_pair(report: Report, folder: Path, number: int) -> tuple[str, str]:
    """Returns the image files of a frame, counted from 1, before and after."""
    if not (folder / 'before.mp4').exists():
        return str(folder / 'before.png'), str(folder / 'after.png')
    seconds = _frame_times(folder)[number - 1]
    for side in ('before', 'after'):
        with open_source(folder / f'{side}.mp4', max(0, seconds - 1e-4)) as source:
            _write_image(next(iter(source)).pixels, folder / f'{side}_{number}.png')
    return str(folder / f'before_{number}.png'), str(folder / f'after_{number}.png')


def _part(start: str, length: str) -> tuple[Fraction | None, Fraction | None]:
    """Returns where to start and end, in seconds; None for the beginning and the end of the clip."""
    begin = parse_time(start or 0, 'start')
    return begin or None, begin + parse_time(length, 'length') if length else None


class _Reporting:
    """Wraps a restorer and reports each frame."""

    def __init__(self, restorer: VideoRestorer, count: int, report: Report) -> None:
        self.restorer, self.count, self.report = restorer, count, report

    def restore(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for done, pixels in enumerate(self.restorer.restore(frames), 1):
            self.report(done, self.count)
            yield pixels


def _write_preview(clip: Path, target: Path, start: Fraction | None = None, end: Fraction | None = None) -> None:
    """Writes 8-bit H.264 with even sides, or a PNG file."""
    with open_source(clip, start, end) as source:
        _refuse_many_pixels(clip, source.size)
        if is_image(clip.name):
            _write_image(next(iter(source)).pixels, target.with_suffix('.png'))
            return
        sink = VideoSink(target.with_suffix('.mp4'), replace(source.info, chroma='420', bits=8, copied=None))
        height, width = (side // 2 * 2 for side in source.size)
        for frame in source:
            sink.write(replace(frame, pixels=eight_bits(np.ascontiguousarray(frame.pixels[:height, :width]))))
        sink.finish()


def _frame_times(folder: Path) -> list[float]:
    """Returns the time in seconds of each frame of ``before.mp4``, from the first."""
    with av.open(str(folder / 'before.mp4')) as container:
        pts = sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)
        return [float((tick - pts[0]) * container.streams.video[0].time_base) for tick in pts]


def _refuse_many_pixels(clip: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > _MAX_PIXELS:
        raise DBLRError(f'{clip} has {size[1]}x{size[0]} pixels, too many for the page; use dblr deblur')


def _write_image(pixels: np.ndarray, target: Path) -> None:
    cv2.imwrite(str(target), cv2.cvtColor(eight_bits(pixels), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
