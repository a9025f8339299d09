"""How fast PSNR and SSIM are computed: BasicSR's functions and ours, on the same 720p frame, in one run."""

from __future__ import annotations

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)

# isort: split

import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from basicsr.metrics import calculate_psnr, calculate_ssim
from common import arguments, run, single_threaded
from frames import generate_sample

from dblr_plugin.benchmark.timing import Variant, figures, run_rounds
from dblr_plugin.evaluation.psnr_ssim import psnr, ssim

METHOD = {
    'frame': 'a blurry and a sharp frame of 1280x720, uint8',
    'threads': 1,
    'order': 'all ways in every round, the first round not counted',
    'figure': 'median over rounds, in milliseconds per frame',
    'difference': "of the figure from BasicSR's",
}


def measure(seconds: float) -> dict:
    """Measures all variants for so many seconds and returns the report (docs/speed/schema.json)."""
    origin, images = _frames()
    ways = {}
    for colour, luma in (('rgb', False), ('y', True)):
        for name, theirs, ours in (('psnr', calculate_psnr, psnr), ('ssim', calculate_ssim, ssim)):
            text, baseline = f'{name.upper()}, {colour.upper()}', f'basicsr_{name}_{colour}'
            settings = {'crop_border': 0, 'test_y_channel': luma}
            ways[baseline] = Variant(f'{text}: BasicSR', partial(theirs, *images, **settings), baseline)
            ways[f'{name}_{colour}'] = Variant(f'{text}: ours', partial(ours, *images, **settings), baseline)
    with single_threaded():
        run_rounds([*ways.values()], seconds)
    measured = figures(ways)
    for name, way in measured.items():
        value = float(ways[name].result)
        way |= {'value': value, 'difference': value - float(ways[way['baseline']].result)}
    return {'origin': origin, 'size': list(images[0].shape[:2]), 'ways': measured}


def _frames() -> tuple[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the origin of the frames, and a blurry and a sharp one, BGR."""
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        sample = generate_sample(Path(folder), '.png', count=1)
        blurry, sharp = (cv2.imread(str(min(root.glob('*/*')))) for root in (sample.lq, sample.gt))
        return sample.origin, (blurry, sharp)


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the given arguments, by default those of the command line."""
    parser = arguments(__doc__, seconds=20)
    run('metrics', parser.parse_args(argv), METHOD, lambda args: measure(args.seconds))


if __name__ == '__main__':
    main()
