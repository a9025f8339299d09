"""Measures flicker on the held-out clips: the warping error of each method's output, and that of the input.

    python scripts/weights/flicker.py datasets/weights unsharp light balanced

The warping error (dblr_plugin/evaluation/consistency.py) is the mean squared difference of each frame and the next,
warped to it along the flow of the sharp clip; here in thousandths, as the mean of each clip. The sharp clip's own error
comes from flow, interpolation and noise. Methods: see heldout.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from heldout import heading, method_of, read

from dblr_plugin.evaluation.consistency import flow_and_visible, warped_difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='where heldout.sh put the clips')
    parser.add_argument('methods', nargs='+')
    args = parser.parse_args()
    methods = {name: method_of(name) for name in args.methods}
    heading('warping error, thousandths', ['sharp', 'blurry', *methods])
    clips = args.root / 'test' / 'motion' / 'train'
    lines = []
    for folder in sorted((clips / 'lq').iterdir()):
        sharp, blurry = read(clips / 'gt' / folder.name), read(folder)
        flows = [flow_and_visible(bgr(first), bgr(second)) for first, second in pairwise(sharp)]
        restored = (restore(blurry) for restore in methods.values())
        lines.append([warping_error(frames, flows) for frames in (sharp, blurry, *restored)])
        show(folder.name.split('_')[0], lines[-1])
    errors = np.array(lines)
    ratios = errors / errors[:, 1:2]
    show('mean', errors.mean(0))
    show('times the blurry one: mean', ratios.mean(0))
    show('times the blurry one: largest', ratios.max(0))


def bgr(frame: np.ndarray) -> np.ndarray:
    """Converts RGB to OpenCV's BGR."""
    return np.ascontiguousarray(frame[..., ::-1])


def warping_error(frames: Iterable[np.ndarray], flows: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean over the pairs of consecutive frames with common pixels, in thousandths."""
    pairs = zip(pairwise(frames), flows, strict=True)
    return 1000 * float(np.mean([warped_difference(*pair, *flow) for pair, flow in pairs if flow[1].any()]))


def show(name: str, values: Iterable[float]) -> None:
    """Prints a row of the table."""
    print(f'| {name} | {" | ".join(f"{value:.2f}" for value in values)} |')
    sys.stdout.flush()


if __name__ == '__main__':
    main()
