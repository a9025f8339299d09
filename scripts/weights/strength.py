"""Measures where weights help: their gain against strength of blur, noise and compression, as a table and three plots.

    python scripts/weights/strength.py datasets/weights unsharp light balanced

Held-out photographs move at constant speed in random directions, so that the length of the blur is known; an exposure
lasts half the time between two frames. Each row changes one of: blur of 2 to 4 pixels, noise of one level, no
compression. Noise is a sensor's shot noise, given as its standard deviation at middle grey in levels of 255. The middle
one of five frames is compared with the sharp photograph: PSNR in dB of RGB, uint8, mean of 30 windows, which show the
same scenes in each row. A tenth is cropped at each border. Methods: see heldout.py.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from heldout import MIDDLE, PERFECT, WINDOW, Middle, heading, label, middle_of, show
from torch import Generator, Tensor
from torch.nn import functional as F

from dblr_plugin.benchmark.plots import MarkerStyle, Theme, draw, legend
from dblr_plugin.colour import to_linear_light
from dblr_plugin.data.motion import read_pictures
from dblr_plugin.data.motion.scene import Layer, pixel_line, render, uniform
from dblr_plugin.data.motion.scene import Path as Motion
from dblr_plugin.data.motion.sensor import encoded, h264, with_noise
from dblr_plugin.data.motion.windows import picture_side
from dblr_plugin.evaluation.psnr_ssim import psnr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[2] / 'docs'
LOWEST = -2  # dB, lower limit of the plots
EXPOSURE = 0.5  # of the time between two frames
TEXELS = 1.7  # of a photograph, per pixel
GREY = 0.2159  # linear light of middle grey, sRGB 0.502, where sRGB has a slope of 1.075
SLOPE = 1.075


@dataclass(frozen=True)
class Condition:
    """Condition of a row: pixels of blur (minimum and maximum), noise in levels at middle grey, x264's rate factor."""

    blur: tuple[float, float] = (2, 4)
    noise: float = 1
    rate_factor: float | None = None


ROWS = {
    'blur': {
        'none': Condition(blur=(0, 0)),
        **{f'{low} to {2 * low}': Condition(blur=(low, 2 * low)) for low in (1, 2, 4, 8)},
    },
    'noise': {str(noise): Condition(noise=noise) for noise in (0, 1, 2, 4, 8)},
    'H.264': {'none': Condition(rate_factor=None), **{str(f): Condition(rate_factor=f) for f in (18, 23, 28, 33)}},
}
UNITS = {
    'blur': 'length of blur (pixels)',
    'noise': 'noise at middle grey (levels of 255)',
    'H.264': 'compression (rate factor of H.264)',
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='where corpus.py put the photographs')
    parser.add_argument('methods', nargs='+')
    parser.add_argument('--plots', type=Path, default=DOCS, help='the folder of the plots')
    parser.add_argument('--toy', action='store_true', help='few small windows')
    args = parser.parse_args()
    count, size = (2, 32) if args.toy else (30, 128)
    scenes = Scenes(args.root / 'pictures' / 'test', count, size)
    methods = {name: middle_of(name) for name in args.methods}
    heading('', ['blurry', *methods])
    measured: dict[Condition, np.ndarray] = {}  # the condition common to all three is measured once
    for kind, rows in ROWS.items():
        for name, condition in rows.items():
            if condition not in measured:
                measured[condition] = gains(scenes, condition, list(methods.values()))
            show(f'{kind} {name}', measured[condition])
    draw(args.plots, 'weights_strength', (10, 3.4), partial(paint, measured, [label(name) for name in methods]))


class Scenes:
    """Held-out photographs, each with a direction of motion."""

    def __init__(self, folder: Path, count: int, size: int) -> None:
        generator = Generator().manual_seed(0)
        side = picture_side(size)
        pictures = read_pictures(folder, grey=False, least=side)
        crops = [pictures.crops(1, side, generator, number % len(pictures)) for number in range(count)]
        light = torch.from_numpy(to_linear_light(torch.cat(crops).numpy()))
        self.light = F.avg_pool2d(light, 2, stride=1)  # as seen by pixels twice the size of a texel
        self.direction = uniform(0, 2 * math.pi, (count,), generator)
        self.share = uniform(0, 1, (count,), generator)  # position between minimum and maximum blur
        self.size = size

    def windows(self, condition: Condition) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields blurry frames ``(5, h, w, 3)`` and the sharp middle one ``(h, w, 3)``, RGB, uint8."""
        low, high = condition.blur
        layer = self._moving((low + self.share * (high - low)) / EXPOSURE)
        moments = math.ceil(high) + 1
        spread = ((torch.arange(moments) + 0.5) / moments - 0.5) * EXPOSURE
        numbers = torch.arange(WINDOW) - MIDDLE
        line, count = pixel_line(self.size, torch.device('cpu')), len(self.share)
        light = torch.stack([render([layer], (spread + n)[:, None].expand(-1, count), line) for n in numbers], 1)
        sharp = render([layer], torch.zeros(1, count), line)
        shot = (condition.noise / 255 / SLOPE) ** 2 / GREY
        light = with_noise(light, shot, 0, Generator().manual_seed(1))
        for frames, truth in zip(as_bytes(light), as_bytes(sharp), strict=True):
            yield frames if condition.rate_factor is None else h264(frames, condition.rate_factor), truth

    def _moving(self, speed: Tensor) -> Layer:
        """Returns the photographs as layers that move by ``speed`` pixels per frame."""
        count = len(speed)
        velocity = torch.zeros(count, 4)
        velocity[:, :2] = speed[:, None] * torch.stack([self.direction.cos(), self.direction.sin()], 1)
        still = torch.zeros(count, 1, 4)
        path = Motion(velocity, still, still, still)
        return Layer(self.light, torch.full((count,), TEXELS), torch.zeros(count, 2), path, is_opaque=True)


def as_bytes(light: Tensor) -> np.ndarray:
    """Encodes linear light ``(..., c, h, w)`` as uint8 ``(..., h, w, c)``."""
    return (encoded(light) * 255).round().to(torch.uint8).movedim(-3, -1).contiguous().numpy()


def gains(scenes: Scenes, condition: Condition, methods: list[Middle]) -> np.ndarray:
    """Mean PSNR of the blurry middle frames, and each method's mean gain."""
    lines = []
    for frames, truth in scenes.windows(condition):
        middles = [frames[MIDDLE], *(restore(frames) for restore in methods)]
        before, *after = (min(psnr(middle, truth, scenes.size // 10), PERFECT) for middle in middles)
        lines.append([before, *(value - before for value in after)])
    return np.mean(lines, 0)


def paint(measured: dict[Condition, np.ndarray], methods: list[str], figure: Figure, theme: Theme) -> None:
    """Plots gain against blur, noise and compression, side by side."""
    panels = figure.subplots(1, len(ROWS), sharey=True)
    for ax, (kind, rows) in zip(panels, ROWS.items(), strict=True):
        for number, method in enumerate(methods):
            look = MarkerStyle.of(number, theme)
            added = [measured[condition][number + 1] for condition in rows.values()]
            ax.plot(range(len(rows)), added, f'{look.marker}-', color=look.colour, label=method)
        ax.axhline(0, color=theme.text, linewidth=0.8)
        ax.set_xticks(range(len(rows)), rows)
        ax.set_xlabel(UNITS[kind])
    panels[0].set_ylim(bottom=max(LOWEST, panels[0].get_ylim()[0]))
    panels[0].set_ylabel('gain in PSNR (dB)')
    legend(panels[-1])


if __name__ == '__main__':
    main()
