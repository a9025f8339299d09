"""Where the time of a frame goes in ``dblr deblur``: processor milliseconds of decoding, colour, network and encoding.

    python scripts/speed/stages.py shaky.mp4 --frames 16 --size 1280x720

Stages run one after the other on the same frames, not in threads as in ``dblr deblur``, so that each is measured alone;
processor time of all threads is counted, which other programs on the machine do not change much.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dblr_plugin.restore import video_restorer
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.video import open_sink, open_source

WARM_UP = 6  # frames during which networks are converted and compiled


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the given arguments, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('video', type=Path)
    parser.add_argument('--frames', type=int, default=16)
    parser.add_argument('--size', default='1280x720', metavar='WIDTHxHEIGHT', help='frames are scaled to it')
    parser.add_argument('--precision', default='auto')
    parser.add_argument('--backend', default='auto')
    args = parser.parse_args(argv)
    size = tuple(map(int, args.size.split('x')))
    for name, milliseconds in measure(args.video, args.frames, size, args.backend, args.precision).items():
        print(f'{name:40s} {milliseconds:8.1f} ms a frame')


def measure(video: Path, count: int, size: tuple[int, int], backend: str, precision: str) -> dict[str, float]:
    """Measures milliseconds per frame of each stage, by name."""
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        scaled = _scaled(video, Path(folder) / 'scaled.mp4', WARM_UP + count, size)
        with open_source(scaled) as source:
            frames = _timed(spent, 'decode', lambda: list(source))()
            spent['decode'] *= count / len(frames)
            restorer = VideoRestorer.from_weights('light', backend=backend, precision=precision)
            list(restorer.restore(frame.pixels for frame in frames[:WARM_UP]))
            _wrap(spent, restorer)
            restored = _timed(
                spent, 'total of restoring', lambda: list(restorer.restore(f.pixels for f in frames[-count:]))
            )()
            sink = open_sink(Path(folder) / 'out.mp4', source)
            pairs = zip(frames[-count:], restored, strict=True)
            _timed(spent, 'encode', lambda: [sink.write(replace(f, pixels=pixels)) for f, pixels in pairs])()
            _timed(spent, 'encode', sink.finish)()
    inside = sum(value for name, value in spent.items() if name.startswith('  '))
    spent['  other: windows, frame to float'] = spent['total of restoring'] - inside
    return {name: 1000 * seconds / count for name, seconds in spent.items()}


def _scaled(video: Path, target: Path, count: int, size: tuple[int, int]) -> Path:
    with open_source(video) as source:
        frames = [replace(f, pixels=np.ascontiguousarray(cv2.resize(f.pixels, size))) for f in islice(source, count)]
        sink = open_sink(target, source)
        for frame in frames:
            sink.write(frame)
        sink.finish()
    return target


def _wrap(spent: Counter[str], restorer: VideoRestorer) -> None:
    restorer.restorer.net = _timed(spent, '  network', restorer.restorer.net)
    restorer._on_device = _timed(spent, '  to float and Y', restorer._on_device)
    restorer.restorer.restore = _without(spent, '  new Y into RGB', '  network', restorer.restorer.restore)
    for name, text in (('thumbnail', '  thumbnail'), ('_pixels', '  to uint8')):
        setattr(video_restorer, name, _timed(spent, text, getattr(video_restorer, name)))


def _timed(spent: Counter[str], name: str, run: Callable) -> Callable:
    def timed(*args: Any) -> Any:
        start = time.process_time()
        result = run(*args)
        spent[name] += time.process_time() - start
        return result

    return timed


def _without(spent: Counter[str], name: str, part: str, run: Callable) -> Callable:
    """Times a function, excluding one of its parts."""

    def timed(*args: Any) -> Any:
        start, before = time.process_time(), spent[part]
        result = run(*args)
        spent[name] += time.process_time() - start - (spent[part] - before)
        return result

    return timed


if __name__ == '__main__':
    main()
