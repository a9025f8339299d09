"""Draws scrolling pages of text and figures, as in screen recordings, for ``gpu.py``; measures what weights do to them.

    python scripts/weights/pages.py light balanced

Photographs that move over a sensor are soft beside text on a screen, whose strokes are as wide as a pixel; weights
trained on them alone may destroy such text where it scrolls (docs/weights.md). Printed is the PSNR in dB of frames
restored from pages that no training saw, none of them blurred: mean and smallest of 60 windows. Fonts: matplotlib's.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dblr_plugin.data.motion.sensor import compressed

SIDE = 640  # pixels of a page
FASTEST = 40  # pixels per frame
LETTERS = list('etaoinshrdlcumwfgypbvkETAOIN0123456789.,:;()-+')
HELD_OUT = 1000  # seed of the pages that are measured

Box = tuple[int, int, int, int]


def main() -> None:
    # here and below: a machine with a GPU, where gpu.py needs only scrolling(), may lack what these import
    from heldout import MIDDLE, PERFECT, WINDOW, middle_of

    from dblr_plugin.evaluation.psnr_ssim import psnr

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('methods', nargs='+', help='see heldout.py')
    parser.add_argument('--toy', action='store_true', help='few small windows')
    args = parser.parse_args()
    count, side = (2, 32) if args.toy else (60, 128)
    pages = [np.asarray(page(default_rng([HELD_OUT, number])))[..., None] for number in range(count)]
    offsets = [number - MIDDLE for number in range(WINDOW)]
    windows = scrolling(pages, count, side, offsets, HELD_OUT).permute(0, 1, 3, 4, 2).expand(-1, -1, -1, -1, 3).numpy()
    print('| pages that scroll | mean | smallest |\n|---|---|---|')
    for name in args.methods:
        restore = middle_of(name)
        found = [min(psnr(restore(window), window[MIDDLE]), PERFECT) for window in windows]
        print(f'| {name} | {np.mean(found):.1f} | {min(found):.1f} |', flush=True)


def scrolling(
    pages: Sequence[np.ndarray], count: int, size: int, offsets: Sequence[int], seed: int, losses: bool = False
) -> Tensor:
    """Cuts windows out of pages ``(h, w, 1)`` that move by whole pixels: uint8 ``(count, t, 1, size, size)``.

    With ``losses``, half of them are compressed as JPEG or H.264.
    """
    random = default_rng(seed)
    windows = np.empty((count, len(offsets), 1, size, size), np.uint8)
    for window in windows:
        drawn = pages[random.integers(len(pages))]
        speed = np.array([random.integers(-FASTEST, FASTEST + 1), 0])
        if random.random() < 0.3:
            speed = random.integers(-FASTEST, FASTEST + 1, 2)
        if random.random() < 0.4:
            speed = speed // 8
        moved = np.outer(offsets, speed)
        place = random.integers(-moved.min(0), np.array(drawn.shape[:2]) - size - moved.max(0) + 1)
        for frame, (top, left) in zip(window, place + moved, strict=True):
            frame[0] = drawn[top : top + size, left : left + size, 0]
    frames = torch.from_numpy(windows)
    return compressed(frames / 255, torch.Generator().manual_seed(seed)) if losses else frames


def page(random: Generator) -> Image.Image:
    """Draws a grey page: panels, each with text or a figure, on light or dark ground."""
    ground = shade(random)
    image = Image.new('L', (SIDE, SIDE), ground)
    draw = ImageDraw.Draw(image)
    for box in panels(random, (0, 0, SIDE, SIDE)):
        panel_ground = ground if random.random() < 0.6 else shade(random)
        draw.rectangle(box, fill=panel_ground)
        draw.fontmode = '1' if random.random() < 0.2 else 'L'  # without grey edges, and with them
        (write if random.random() < 0.7 else sketch)(draw, box, panel_ground, random)
    return image


def panels(random: Generator, box: Box) -> list[Box]:
    """Divides a box at random."""
    left, top, right, bottom = box
    if max(right - left, bottom - top) <= SIDE // 2 or random.random() < 0.2:
        return [box]
    part = random.uniform(0.3, 0.7)
    if right - left > bottom - top:
        middle = int(left + part * (right - left))
        halves = (left, top, middle, bottom), (middle, top, right, bottom)
    else:
        middle = int(top + part * (bottom - top))
        halves = (left, top, right, middle), (left, middle, right, bottom)
    return [panel for half in halves for panel in panels(random, half)]


def shade(random: Generator) -> int:
    """Draws the brightness of a ground: mostly almost white, else almost black, or any."""
    low, high = ((225, 256), (0, 40), (0, 256))[random.choice(3, p=[0.6, 0.25, 0.15])]
    return min(255, int(random.integers(low, high + (low == 225) * 15)))


def ink(ground: int, random: Generator) -> int:
    """Draws a brightness that can be told from the ground's; mostly black or white."""
    if random.random() < 0.6:
        return int(random.integers(30)) if ground > 127 else 255 - int(random.integers(30))
    return int(random.choice([value for value in range(256) if abs(value - ground) >= 50]))


@functools.cache
def fonts() -> list[str]:
    """Returns the paths of the fonts."""
    import matplotlib

    return sorted(str(path) for path in Path(matplotlib.get_data_path(), 'fonts', 'ttf').glob('DejaVu*.ttf'))


def write(draw: ImageDraw.ImageDraw, box: Box, ground: int, random: Generator) -> None:
    """Fills a box with lines of text."""
    left, top, right, bottom = box
    size = int(np.exp(random.uniform(np.log(7), np.log(40))))
    font = ImageFont.truetype(str(random.choice(fonts())), size)
    spacing, colour = int(size * random.uniform(1.15, 1.9)), ink(ground, random)
    for y in range(top + size // 2, bottom - size, spacing):
        letters = [' ' if random.random() < 0.17 else random.choice(LETTERS) for _ in range(2 * SIDE // size)]
        text = ''.join(letters)
        while font.getlength(text) > right - left - size:
            text = text[:-1]
        draw.text((left + size // 2, y), text, fill=colour, font=font)


def sketch(draw: ImageDraw.ImageDraw, box: Box, ground: int, random: Generator) -> None:
    """Fills a box with lines, outlined shapes, and a curve."""
    left, top, right, bottom = box
    inside = np.array([right - left, bottom - top]) - 1
    for _ in range(random.integers(5, 40)):
        begin = random.integers(inside) + np.array([left, top])
        end = np.minimum(begin + random.integers(4, 200, 2), np.array([right, bottom]) - 1)
        corners, width = (*begin.tolist(), *end.tolist()), int(random.integers(1, 5))
        fill = ink(ground, random) if random.random() < 0.5 else None
        shape = random.choice(['line', 'rectangle', 'ellipse'])
        if shape == 'line':
            draw.line(corners, fill=ink(ground, random), width=width)
        else:
            getattr(draw, shape)(corners, fill=fill, outline=ink(ground, random), width=width)
    across = np.linspace(left, right - 1, 60)
    heights = top + (0.5 + 0.1 * np.cumsum(random.normal(size=60))).clip(0, 1) * inside[1]
    draw.line(list(zip(across, heights, strict=True)), fill=ink(ground, random), width=int(random.integers(1, 4)))


if __name__ == '__main__':
    main()
