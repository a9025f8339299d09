"""The demo's pictures: crops side by side, and the course of the trainings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from demo_report import METHODS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

matplotlib.use('Agg')

__all__ = ['draw_comparison', 'draw_curves', 'telling_crop']

#: iterations and values
Curve = tuple[list[int], list[float]]

CROP = (120, 160)
# of a crop's grey values: less is flat, black or white
LEAST_CONTRAST, LEAST_GREY, MOST_GREY = 16, 40, 215
# A batch of two says little about the loss.
SMOOTHING = 10
TRAININGS = tuple((method.label, method.training) for method in METHODS if method.training)


def telling_crop(blurry: np.ndarray, sharp: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Returns rows and columns of the crop in which two pictures differ most, of those that show something.

    A crop shows something if it is neither flat nor nearly black or white; where there is none, any crop counts.

    Args:
        blurry: uint8 (h, w, 3).
        sharp: The same shape.
        size: Height and width of the crop, at most those of the pictures.
    """
    difference = _means(cv2.absdiff(blurry, sharp).mean(axis=2), size)
    grey = sharp.mean(axis=2)
    mean = _means(grey, size)
    contrast = np.sqrt(np.maximum(_means(grey**2, size) - mean**2, 0))
    shows = (contrast >= LEAST_CONTRAST) & (mean >= LEAST_GREY) & (mean <= MOST_GREY)
    if shows.any():
        difference[~shows] = -1
    top, left = np.unravel_index(difference.argmax(), difference.shape)
    return slice(top, top + size[0]), slice(left, left + size[1])


def _means(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean of (h, w) values in the rectangle of a size at each place where it fits."""
    height, width = size
    # integral[y, x] is the sum above and left of (y, x): four look-ups sum any rectangle
    integral = cv2.integral(values)
    sums = integral[height:, width:] - integral[:-height, width:] - integral[height:, :-width]
    return (sums + integral[:-height, :-width]) / (height * width)


def draw_comparison(root: Path, figures: dict[str, dict], path: Path) -> None:
    """Draws blurry | DBLRNet | DBLRGAN | sharp crops, one row for each validation clip.

    The frame is the clip's middle one; the crop is where its blurry and sharp versions differ most and there is
    something to see.

    Args:
        root: The folder that holds ``datasets`` and ``results``.
        figures: As ``read_figures`` returns them.
        path: The PNG to write.
    """
    clips = list(next(iter(figures.values()))['clips'])
    figure = Figure(figsize=(14, 2.95 * len(clips) + 0.5), layout='constrained')
    rows = figure.subplots(len(clips), len(METHODS) + 1, squeeze=False)
    for axes, clip in zip(rows, clips, strict=True):
        sharp_files = sorted((root / 'datasets/demo/val/gt' / clip).iterdir())
        frame = sharp_files[len(sharp_files) // 2]
        pictures = [_read(_restored(root, method.test, clip, frame.stem)) for method in METHODS] + [_read(frame)]
        crop = telling_crop(pictures[0], pictures[-1], CROP)
        psnr = [f'{method.label}, {figures[method.label]["clips"][clip]["psnr"]:.2f} dB' for method in METHODS]
        for ax, picture, title in zip(axes, pictures, [*psnr, 'sharp'], strict=True):
            ax.imshow(picture[crop], interpolation='nearest')
            ax.set(title=title, xticks=[], yticks=[])
        axes[0].set_ylabel(f'{clip}, frame {int(frame.stem)}')
    figure.suptitle('The crop in which blurry and sharp differ most; PSNR over the whole clip')
    figure.savefig(path, dpi=110)


def draw_curves(root: Path, figures: dict[str, dict], path: Path) -> None:
    """Draws content loss, adversarial losses and validation PSNR over the iterations of both trainings.

    Args:
        root: The folder that holds ``experiments`` and ``tb_logger``.
        figures: As ``read_figures`` returns them.
        path: The PNG to write.
    """
    figure = Figure(figsize=(14, 8), layout='constrained')
    content, psnr, discriminator, generator = figure.subplots(2, 2).flat
    for label, training in TRAININGS:
        losses = _losses(root / 'tb_logger' / training)
        content.plot(*losses.get('l_g_pix', losses.get('l_pix')), label=label)
        psnr.plot(*_validations(root / 'experiments' / training), marker='o', label=label)
        if 'l_g_gan' in losses:
            discriminator.plot(*losses['l_d_real'], label='on sharp frames')
            discriminator.plot(*losses['l_d_fake'], label='on restored frames')
            generator.plot(*losses['l_g_gan'], label=label)
    psnr.axhline(figures['blurry input']['mean']['psnr'], color='grey', linestyle='--', label='blurry input')
    discriminator.axhline(math.log(2), color='grey', linestyle='--', label='guessing')
    content.set_yscale('log')
    _finish(content, f'Content loss: mean squared error of Y (mean of {SMOOTHING} logged values)')
    _finish(psnr, 'PSNR on the validation clips (dB)')
    _finish(discriminator, f'Losses of the discriminator (mean of {SMOOTHING} logged values)')
    _finish(generator, f'Adversarial loss of the generator, times alpha (mean of {SMOOTHING} logged values)')
    figure.savefig(path, dpi=110)


def _finish(ax: Axes, title: str) -> None:
    ax.set(title=title, xlabel='iteration')
    ax.grid(alpha=0.3)
    ax.legend()


def _losses(folder: Path) -> dict[str, Curve]:
    """Reads BasicSR's TensorBoard log: the curve of each loss by its name, each point the mean of the latest ones."""
    log = EventAccumulator(str(folder))
    log.Reload()
    curves = {}
    for tag in log.Tags()['scalars']:
        if tag.startswith('losses/'):
            events = log.Scalars(tag)
            values = [event.value for event in events]
            means = [float(np.mean(values[max(0, i - SMOOTHING) : i])) for i in range(1, len(values) + 1)]
            curves[tag.removeprefix('losses/')] = ([event.step for event in events], means)
    return curves


def _validations(folder: Path) -> Curve:
    """Reads the mean PSNR of a training's validations."""
    entries = json.loads((folder / 'metrics.json').read_text())
    return [entry['iter'] for entry in entries], [entry['mean']['psnr'] for entry in entries]


def _restored(root: Path, test: str, clip: str, frame: str) -> Path:
    return root / 'results' / test / 'visualization/demo' / clip / f'{frame}_{test}.png'


def _read(path: Path) -> np.ndarray:
    """Reads a picture as uint8 RGB (h, w, 3)."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
