"""Draws the README's first picture: crops of held-out clips, blurred, restored and sharp.

    python scripts/weights/first_picture.py datasets/weights light balanced

Needs the clips of heldout.sh; methods: see heldout.py. Writes docs/weights_heldout.jpg: a row for each crop of CROPS,
enlarged twofold, a column for the blurry frame, for each method and for the sharp frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from heldout import MIDDLE, WINDOW, Middle, label, middle_of
from real import enlarged, picture_of

PICTURE = Path(__file__).parents[2] / 'docs' / 'weights_heldout.jpg'
# kind of blur, clip, frame, left, top: from clips under the MIT licence where balanced gains a lot
CROPS = (('motion', 'motorway', 8, 674, 104), ('hand', 'walk', 8, 672, 144))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='where heldout.sh put the clips')
    parser.add_argument('methods', nargs='+')
    parser.add_argument('--picture', type=Path, default=PICTURE)
    args = parser.parse_args()
    methods = [middle_of(name) for name in args.methods]
    crops = [crops_of(args.root / 'test', *crop, methods) for crop in CROPS]
    picture_of(['blurry', *map(label, args.methods), 'sharp'], crops).save(args.picture, quality=90)


def crops_of(
    root: Path, kind: str, name: str, frame: int, left: int, top: int, methods: list[Middle]
) -> list[np.ndarray]:
    """Crops a blurry frame, each method's restoration of it, and the sharp frame; RGB, enlarged."""
    lq = next((root / kind / 'train' / 'lq').glob(f'{name}_*'))
    gt = root / kind / 'train' / 'gt' / lq.name
    paths = sorted(lq.glob('*.png'))[frame - MIDDLE : frame - MIDDLE + WINDOW]
    frames = np.stack([cv2.imread(str(path))[..., ::-1] for path in paths])
    sharp = cv2.imread(str(gt / paths[MIDDLE].name))[..., ::-1]
    return enlarged([frames[MIDDLE], *(restore(frames) for restore in methods), sharp], left, top)


if __name__ == '__main__':
    main()
