"""Shows how weights restore films with real camera blur: the crops of real.tsv, original and restored.

    python scripts/weights/real.py datasets/weights light balanced

Fetches missing films (like corpus.py) and writes docs/weights_real.jpg: a row for each crop, enlarged twofold, a column
for the input and for each method. Methods: see heldout.py.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from corpus import fetch, frames_of, place_of, rows
from heldout import MIDDLE, WINDOW, Middle, label, middle_of
from PIL import Image, ImageDraw, ImageFont

PICTURE = Path(__file__).parents[2] / 'docs' / 'weights_real.jpg'
WIDTH, HEIGHT = 160, 120  # of a crop
ENLARGED = 2
GAP, TITLE = 6, 26  # pixels between crops, and above them


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='where films are kept')
    parser.add_argument('methods', nargs='+')
    parser.add_argument('--picture', type=Path, default=PICTURE)
    args = parser.parse_args()
    listed = rows('real.tsv')
    if fetch(listed, args.root):
        return 1
    methods = [middle_of(name) for name in args.methods]
    crops = [crops_of(row, args.root, methods) for row in listed]
    titles = ['input', *map(label, args.methods)]
    picture_of(titles, crops).save(args.picture, quality=90)
    return 0


def crops_of(row: dict[str, str], root: Path, methods: list[Middle]) -> list[np.ndarray]:
    """Crops the listed frame and each method's restoration of it; RGB, enlarged."""
    first = int(row['frame']) - MIDDLE
    frames = np.stack(list(islice(frames_of(place_of(root, row)), first, first + WINDOW)))[..., ::-1].copy()
    top, left = int(row['top']), int(row['left'])
    images = [frames[MIDDLE], *(restore(frames) for restore in methods)]
    return enlarged(images, left, top)


def enlarged(images: list[np.ndarray], left: int, top: int) -> list[np.ndarray]:
    """Cuts the same crop from all images and enlarges it for drawing."""
    size = ENLARGED * WIDTH, ENLARGED * HEIGHT
    crops = (image[top : top + HEIGHT, left : left + WIDTH] for image in images)
    return [cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC) for crop in crops]


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
