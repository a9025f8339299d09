"""How fast training and validation samples are read: BasicSR's variants and ours, on the same frames, in one run.

All variants run in every round (:mod:`dblr_plugin.benchmark.timing`); a round's figure is the mean time for a sample.
Everything runs in one thread of one process and from the page cache: this measures processing, not disks.

The machine's limit is the speed of copying memory, as a sample's bytes must at least be written. The time that remains
if decoding is free is measured as a separate variant, the ceiling.
"""

from __future__ import annotations

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)

# isort: split

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from basicsr.data.reds_dataset import REDSDataset
from basicsr.data.video_test_dataset import VideoTestDataset
from common import arguments, run, single_threaded, without_messages
from frames import Sample, generate_sample, take_sample, write_png
from limits import METHOD as LIMITS
from limits import limit_figures, memory_limit
from torch import Tensor
from torch.utils.data import Dataset

from dblr_plugin.benchmark.timing import Variant, figures, run_rounds
from dblr_plugin.data.lmdb_writer import write_lmdb, write_tiles
from dblr_plugin.data.store import FrameStore
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError

CROP, WINDOW = 128, 5
TURN = 0.2  # seconds that a variant reads for in a round
METHOD = {
    'crop': CROP,
    'window': WINDOW,
    'threads': 1,
    'cache': 'warm',
    'order': 'all ways in every round, the first round not counted',
    'figure': 'median over rounds of the mean milliseconds per sample',
    'share': "of a sample's time, what copying as many bytes takes",
    'memory': LIMITS['memory'],
    'sample': f'{WINDOW} blurry frames and the sharp one, as float32 tensors',
}
TRAINING_BASELINE, WHOLE_BASELINE = 'basicsr_lmdb_png', 'basicsr_whole_png'


def measure_own(root_lq: Path, root_gt: Path, seconds: float) -> list[dict]:
    """Measures on a sample of the user's clips; returns the only entry of ``sets``.

    Raises:
        DBLRError: The clips cannot be used, or the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        return [_measure(take_sample(root_lq, root_gt, Path(folder, 'source')), Path(folder), seconds)]


def measure_generated(seconds: float) -> list[dict]:
    """Measures on generated frames, once as JPEG and once as PNG; returns both entries of ``sets``."""
    figures = []
    for suffix in ('.jpg', '.png'):
        with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
            sample = generate_sample(Path(folder, 'source'), suffix)
            figures.append(_measure(sample, Path(folder), seconds / 2))
    return figures


def _measure(sample: Sample, folder: Path, seconds: float) -> dict:
    with single_threaded():
        with without_messages():
            ways, sizes = _ways(sample, folder)
        memory = {'memory': memory_limit(torch.device('cpu'))}
        run_rounds([*ways.values(), *memory.values()], seconds, TURN)
    source_bytes, found, limits = sample.bytes(), figures(ways), limit_figures(memory)
    for name, way in found.items():
        way['bytes'] = sizes[name]
        way['bytes_ratio'] = None if sizes[name] is None else sizes[name] / source_bytes
        written = sum(part.nbytes for part in ways[name].result.values() if isinstance(part, Tensor))
        way['share'] = 2 * written / limits['memory']['speed'] / 1e6 / way['median_ms']
    return {
        'origin': sample.origin,
        'frames': sample.frames,
        'size': list(sample.size),
        'bytes': source_bytes,
        'limits': limits,
        'ways': found,
    }


def _ways(sample: Sample, folder: Path) -> tuple[dict[str, Variant], dict[str, int | None]]:
    """Writes all forms of the sample into ``folder``; returns the variants that read them, and their file sizes."""
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
        WHOLE_BASELINE: ("whole frames: BasicSR's VideoTestDataset, PNG files", basicsr_test_set(png), png.bytes()),
        'whole_png': ('whole frames: ours, the same files', own_test_set((png.lq, png.gt)), png.bytes()),
        'whole_tiles': ('whole frames: ours, tiles', own_test_set(stores['tiles']), size['tiles']),
    }
    # BasicSR's dataset picks another centre, assuming clips of 100 frames, if the window does not fit around this one
    centres = range(WINDOW // 2, sample.frames - WINDOW // 2)
    indices = {TRAINING_BASELINE: centres, 'basicsr_folder_png': centres}
    ways = {
        name: Variant(text, _shuffled(data, indices.get(name, range(len(data)))), TRAINING_BASELINE)
        for name, (text, data, _) in training.items()
    } | {name: Variant(text, _in_order(data), WHOLE_BASELINE) for name, (text, data, _) in whole.items()}
    return ways, {name: size for name, (_, _, size) in (training | whole).items()}


def _shuffled(data: Dataset, indices: range) -> Callable[[], object]:
    """Returns a function that reads samples at random indices, the same in every measurement."""
    rng = random.Random(0)
    return lambda: data[rng.choice(indices)]


def _in_order(data: Dataset) -> Callable[[], object]:
    """Returns a function that reads one sample after the other, endlessly."""

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
    """Builds BasicSR's training set on PNG files, or on databases of them."""
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


def own_test_set(roots: tuple[Path, Path]) -> VideoDeblurTestDataset:
    """Builds our test set on two folders of clips, or databases."""
    return VideoDeblurTestDataset({**_roots(roots), 'name': 'bench', 'num_frame': WINDOW, 'padding': 'replicate'})


def basicsr_test_set(sample: Sample) -> VideoTestDataset:
    """Builds BasicSR's test set on PNG files."""
    backend = {'type': 'disk'}
    # it recognises data sets only by name, and this name means a plain folder
    options = {'name': 'vid4', 'cache_data': False, 'io_backend': backend, 'num_frame': WINDOW, 'padding': 'replicate'}
    return VideoTestDataset({**_roots((sample.lq, sample.gt)), **options})


class _DecodedStore:
    """All frames of a store decoded in memory, to measure reading as if decoding were free."""

    def __init__(self, store: FrameStore) -> None:
        keys = [(clip, frame) for clip, frames in store.clips().items() for frame in frames]
        self._frames = {key: store.read(*key) for key in keys}

    def read_crop(self, clip: str, frame: str, top: int, left: int, size: int, y_only: bool) -> np.ndarray:
        return self._frames[clip, frame][top : top + size, left : left + size]


def _report(args: argparse.Namespace) -> dict:
    if len(args.roots) not in (0, 2):
        raise DBLRError('give both folders, ROOT_LQ and ROOT_GT, or none')
    return {'sets': measure_own(*args.roots, args.seconds) if args.roots else measure_generated(args.seconds)}


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the given arguments, by default those of the command line."""
    parser = arguments(__doc__, seconds=60)
    parser.add_argument('roots', nargs='*', type=Path, metavar='ROOT', help='ROOT_LQ ROOT_GT, folders of clips')
    run('data', parser.parse_args(argv), METHOD, _report)


if __name__ == '__main__':
    main()
