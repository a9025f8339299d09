"""Draws the README's images: crops of frames, blurry, restored by each method and, where there is one, sharp.

    python scripts/weights/crops.py heldout datasets/weights light balanced
    python scripts/weights/crops.py real datasets/weights light balanced

``heldout`` needs the clips of heldout.sh and writes docs/weights_heldout.jpg. ``real`` takes videos with real camera
blur (real.tsv), which it fetches like corpus.py, and writes docs/weights_real.jpg. Crops are enlarged twofold, a row
for each. Methods: see heldout.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from corpus import fetch, frames_of, place_of, rows
from heldout import MIDDLE, WINDOW, label, middle_of
from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parents[2] / 'docs'
WIDTH, HEIGHT = 160, 120  # of a crop
ENLARGED = 2
GAP, TITLE = 6, 26  # pixels between crops, and above them
# kind of blur, clip, frame, left, top: from clips under the MIT licence where balanced gains a lot
HELDOUT = (('motion', 'motorway', 8, 674, 104), ('hand', 'walk', 8, 672, 144))
# five frames (5, h, w, 3), RGB; the sharp middle one if there is one; left and top of the crop
Sample = tuple[np.ndarray, list[np.ndarray], int, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kind', choices=('heldout', 'real'))
    parser.add_argument('root', type=Path, help='where clips and films are kept')
    parser.add_argument('methods', nargs='+')
    parser.add_argument('--picture', type=Path, help='the file to write')
    args = parser.parse_args()
    if args.kind == 'real' and fetch(rows('real.tsv'), args.root):
        return 1
    methods = [middle_of(name) for name in args.methods]
    crops = []
    for frames, sharp, left, top in (heldout if args.kind == 'heldout' else real)(args.root):
        images = [frames[MIDDLE], *(restore(frames) for restore in methods), *sharp]
        crops.append([enlarged(image[top : top + HEIGHT, left : left + WIDTH]) for image in images])
    names = [label(name) for name in args.methods]
    titles = ['blurry', *names, 'sharp'] if args.kind == 'heldout' else ['input', *names]
    picture_of(titles, crops).save(args.picture or DOCS / f'weights_{args.kind}.jpg', quality=90)
    return 0


def heldout(root: Path) -> Iterator[Sample]:
    """Yields samples of the clips that no training saw."""
    for kind, name, frame, left, top in HELDOUT:
        lq = next((root / 'test' / kind / 'train' / 'lq').glob(f'{name}_*'))
        gt = root / 'test' / kind / 'train' / 'gt' / lq.name
        paths = sorted(lq.glob('*.png'))[frame - MIDDLE : frame - MIDDLE + WINDOW]
        frames = np.stack([cv2.imread(str(path))[..., ::-1] for path in paths])
        yield frames, [cv2.imread(str(gt / paths[MIDDLE].name))[..., ::-1]], left, top


def real(root: Path) -> Iterator[Sample]:
    """Yields samples of the films with real camera blur."""
    for row in rows('real.tsv'):
        first = int(row['frame']) - MIDDLE
        frames = np.stack(list(islice(frames_of(place_of(root, row)), first, first + WINDOW)))[..., ::-1].copy()
        yield frames, [], int(row['left']), int(row['top'])


def enlarged(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop, (ENLARGED * WIDTH, ENLARGED * HEIGHT), interpolation=cv2.INTER_CUBIC)


def picture_of(titles: list[str], crops: list[list[np.ndarray]]) -> Image.Image:
    """Arranges crops in rows under column titles."""
    across, down = ENLARGED * WIDTH + GAP, ENLARGED * HEIGHT + GAP
    picture = Image.new('RGB', (across * len(titles) - GAP, TITLE + down * len(crops) - GAP), 'white')
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    for column, title in enumerate(titles):
        pen.text((column * across + 2, 2), title, 'black', font)
        for row, images in enumerate(crops):
            picture.paste(Image.fromarray(images[column]), (column * across, TITLE + row * down))
    return picture


if __name__ == '__main__':
    sys.exit(main())
