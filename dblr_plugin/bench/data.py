"""How fast training and validation samples are read: BasicSR's ways and ours, on the same frames, in one run.

All ways take turns in every round, so that whatever else the machine does strikes all of them. The first round warms
up and is not counted. The figure of a way is the median over rounds of its mean time for a sample. Everything runs in
one thread of one process and from the page cache: what is measured is work, not disks.
"""

from __future__ import annotations

import contextlib
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from basicsr.data.reds_dataset import REDSDataset
from basicsr.data.video_test_dataset import VideoTestDataset
from torch.utils.data import Dataset

from dblr_plugin.bench.frames import Sample, generate_sample, take_sample, write_png
from dblr_plugin.data.lmdb_writer import write_lmdb
from dblr_plugin.data.store import FrameStore
from dblr_plugin.data.tiles.writer import write_tiles
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset

__all__ = ['METHOD', 'measure_generated', 'measure_own']

CROP, WINDOW = 128, 5
TURN = 0.2  # seconds a way runs in a round, or two samples where that takes longer
MIN_ROUNDS = 3
METHOD = {
    'crop': CROP,
    'window': WINDOW,
    'threads': 1,
    'cache': 'warm',
    'order': 'all ways in every round, the first round not counted',
    'figure': 'median over rounds of the mean milliseconds for a sample',
    'sample': f'{WINDOW} blurry frames and the sharp one, as float32 tensors',
}
TRAINING_BASELINE, WHOLE_BASELINE = 'basicsr_lmdb_png', 'basicsr_whole_png'


@dataclass
class Way:
    """One way to read: what it is, how the next sample is made, and what its files take.

    Attributes:
        text: For people.
        baseline: The way whose time is divided by this one's.
        read: Makes one sample.
        bytes: Its files', or None where it has none.
        rounds: Milliseconds for a sample, in each round.
    """

    text: str
    baseline: str
    read: Callable[[], object]
    bytes: int | None
    rounds: list[float] = field(default_factory=list)


def measure_own(root_lq: Path, root_gt: Path, seconds: float) -> list[dict]:
    """Measures on a sample of the user's clips.

    Args:
        root_lq, root_gt: Folders of clips.
        seconds: Time to measure for; at least three rounds are made, whatever they take.

    Returns:
        One set's figures: ``origin``, ``frames``, ``size`` (h, w), ``bytes``, and ``ways``, which maps a name to
        ``text``, ``baseline``, ``median_ms``, ``min_ms``, ``max_ms``, ``rounds_ms``, ``ratio``, ``bytes`` and
        ``bytes_ratio`` (to the source's; None where a way has no files).

    Raises:
        DBLRError: The clips cannot be used, or the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        return [_measure(take_sample(root_lq, root_gt, Path(folder, 'source')), Path(folder), seconds)]


def measure_generated(seconds: float) -> list[dict]:
    """Measures on generated frames, once as JPEG and once as PNG; otherwise as :func:`measure_own`."""
    figures = []
    for suffix in ('.jpg', '.png'):
        with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
            sample = generate_sample(Path(folder, 'source'), suffix)
            figures.append(_measure(sample, Path(folder), seconds / 2))
    return figures


def _measure(sample: Sample, folder: Path, seconds: float) -> dict:
    with _single_threaded(), _without_messages():
        ways = _ways(sample, folder)
        _run_rounds(list(ways.values()), seconds)
    source_bytes = sample.bytes()
    return {
        'origin': sample.origin,
        'frames': sample.frames,
        'size': list(sample.size),
        'bytes': source_bytes,
        'ways': {name: _figures(way, ways[way.baseline], source_bytes) for name, way in ways.items()},
    }


def _figures(way: Way, baseline: Way, source_bytes: int) -> dict:
    median = statistics.median(way.rounds)
    return {
        'text': way.text,
        'baseline': way.baseline,
        'median_ms': median,
        'min_ms': min(way.rounds),
        'max_ms': max(way.rounds),
        'rounds_ms': way.rounds,
        'ratio': statistics.median(baseline.rounds) / median,
        'bytes': way.bytes,
        'bytes_ratio': None if way.bytes is None else way.bytes / source_bytes,
    }


def _run_rounds(ways: list[Way], seconds: float) -> None:
    """Lets all ways take turns until the time is over; the first round is dropped."""
    start, counted = time.perf_counter(), 0
    while counted <= MIN_ROUNDS or time.perf_counter() - start < seconds:
        for way in ways:
            way.rounds.append(_turn(way.read))
        counted += 1
    for way in ways:
        del way.rounds[0]


def _turn(read: Callable[[], object]) -> float:
    """Returns the mean milliseconds for a sample."""
    start, samples = time.perf_counter(), 0
    while samples < 2 or time.perf_counter() - start < TURN:
        read()
        samples += 1
    return (time.perf_counter() - start) * 1000 / samples


def _ways(sample: Sample, folder: Path) -> dict[str, Way]:
    """Writes all forms of the sample into ``folder`` and returns the ways to read them."""
    png = write_png(sample, folder / 'png')
    stores = {form: (folder / f'{form}_lq.lmdb', folder / f'{form}_gt.lmdb') for form in ('png', 'source', 'tiles')}
    for form, source, write in (
        ('png', png, write_lmdb),
        ('source', sample, write_lmdb),
        ('tiles', sample, write_tiles),
    ):
        for root, database in zip((source.lq, source.gt), stores[form], strict=True):
            write(root, database, progress=False)
    own, ram = (sample.lq, sample.gt), _ours((sample.lq, sample.gt))
    ram.lq_store, ram.gt_store = _DecodedStore(ram.lq_store), _DecodedStore(ram.gt_store)
    size = {form: sum((path / 'data.mdb').stat().st_size for path in paths) for form, paths in stores.items()}
    training = {
        TRAINING_BASELINE: ("BasicSR's REDSDataset, LMDB of PNG", _basicsr(png, stores['png']), size['png']),
        'basicsr_folder_png': ("BasicSR's REDSDataset, PNG files", _basicsr(png, None), png.bytes()),
        'folder': ('ours, source files', _ours(own), sample.bytes()),
        'folder_y': ('ours, source files, Y', _ours(own, y_only=True), sample.bytes()),
        'lmdb': ('ours, LMDB of source files', _ours(stores['source']), size['source']),
        'tiles': ('ours, tiles', _ours(stores['tiles']), size['tiles']),
        'tiles_y': ('ours, tiles, Y', _ours(stores['tiles'], y_only=True), size['tiles']),
        'ram': ('ceiling: ours, decoded in memory', ram, None),
    }
    whole = {
        WHOLE_BASELINE: ("whole frames: BasicSR's VideoTestDataset, PNG files", _basicsr_whole(png), png.bytes()),
        'whole_png': ('whole frames: ours, the same files', _ours_whole((png.lq, png.gt)), png.bytes()),
        'whole_tiles': ('whole frames: ours, tiles', _ours_whole(stores['tiles']), size['tiles']),
    }
    # BasicSR's dataset draws another centre, from clips of 100 frames, unless the window fits around the one asked for
    centres = range(WINDOW // 2, sample.frames - WINDOW // 2)
    basicsr_ways = {TRAINING_BASELINE, 'basicsr_folder_png'}
    ways = {
        name: Way(text, TRAINING_BASELINE, _shuffled(data, centres if name in basicsr_ways else range(len(data))), size)
        for name, (text, data, size) in training.items()
    }
    return ways | {name: Way(text, WHOLE_BASELINE, _in_order(data), size) for name, (text, data, size) in whole.items()}


def _shuffled(data: Dataset, indices: range) -> Callable[[], object]:
    """Returns a function that reads samples of random indices, the same ones in every measurement."""
    rng = random.Random(0)
    return lambda: data[rng.choice(indices)]


def _in_order(data: Dataset) -> Callable[[], object]:
    """Returns a function that reads one sample after the other, again and again."""

    def endless() -> Iterator[object]:
        while True:
            for index in range(len(data)):
                yield data[index]

    samples = endless()
    return lambda: next(samples)


def _roots(roots: tuple[Path, Path]) -> dict[str, str]:
    return {'dataroot_lq': str(roots[0]), 'dataroot_gt': str(roots[1])}


def _ours(roots: tuple[Path, Path], y_only: bool = False) -> VideoDeblurDataset:
    augmented = {'use_hflip': True, 'use_rot': True}
    return VideoDeblurDataset({**_roots(roots), **augmented, 'gt_size': CROP, 'num_frame': WINDOW, 'y_only': y_only})


def _basicsr(sample: Sample, databases: tuple[Path, Path] | None) -> REDSDataset:
    """BasicSR's training set on PNG files, or on databases of them."""
    height, width = sample.size
    meta_info = sample.lq.parent / 'meta_info.txt'
    meta_info.write_text(f'000 {sample.frames} ({height},{width},3)\n')
    options = {
        **_roots(databases or (sample.lq, sample.gt)),
        'dataroot_flow': None,
        'meta_info_file': str(meta_info),
        'val_partition': 'official',
        'io_backend': {'type': 'lmdb' if databases else 'disk'},
        'num_frame': WINDOW,
        'gt_size': CROP,
        'scale': 1,
        'interval_list': [1],
        'random_reverse': False,
        'use_hflip': True,
        'use_rot': True,
    }
    return REDSDataset(options)


def _ours_whole(roots: tuple[Path, Path]) -> VideoDeblurTestDataset:
    return VideoDeblurTestDataset({**_roots(roots), 'num_frame': WINDOW, 'padding': 'replicate'})


def _basicsr_whole(sample: Sample) -> VideoTestDataset:
    backend = {'type': 'disk'}
    # it knows data sets by their names alone, and this is one of a plain folder
    options = {'name': 'vid4', 'cache_data': False, 'io_backend': backend, 'num_frame': WINDOW, 'padding': 'replicate'}
    return VideoTestDataset({**_roots((sample.lq, sample.gt)), **options})


class _DecodedStore:
    """All frames of a store, decoded in memory: what reading would cost if decoding were free."""

    def __init__(self, store: FrameStore) -> None:
        keys = [(clip, frame) for clip, frames in store.clips().items() for frame in frames]
        self._frames = {key: store.read(*key) for key in keys}

    def read_crop(self, clip: str, frame: str, top: int, left: int, size: int, y_only: bool) -> np.ndarray:
        return self._frames[clip, frame][top : top + size, left : left + size]


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Keeps BasicSR's log lines out of the table."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
