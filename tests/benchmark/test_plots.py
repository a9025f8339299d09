"""Pictures: no name covers another or is cut off, whatever the names and figures, and colours can be seen."""

from __future__ import annotations

import importlib.util
import itertools
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from dblr_plugin.benchmark import plots
from dblr_plugin.benchmark.crops import Crop, draw_crops
from dblr_plugin.commands import main
from dblr_plugin.errors import DBLRError

NAMES = [
    'Blurry input', 'Fourier burst accumulation, aligned by flow', 'DeepDeblur', 'DBN single', 'DBN', 'DBN flow',
    'EDVR with predeblurring and temporal attention', 'DBLRNet', 'DBLRGAN started from DBLRNet',
]  # fmt: skip
CLIPS = ('IMG_0030', '720p_240fps_2', 'IMG_0021')


def methods(count: int, seed: int, spread: float) -> list[dict]:
    draw = random.Random(seed)
    made = []
    for number, name in enumerate(NAMES[:count]):
        psnr = 27 + (draw.uniform(-0.5, spread) if number else 0)
        curve = None if number < 2 and count > 3 else [[100, 200, 300], [psnr - 2, psnr - 0.5, psnr]]
        clips = {clip: psnr + draw.uniform(-2, 2) for clip in CLIPS}
        made.append({
            'number': number, 'name': name, 'psnr': psnr, 'clips': clips, 'curve': curve if number else None,
            'macs': 10 ** draw.uniform(10, 10 + spread) if number else 0, 'ms': 10 ** draw.uniform(1, 1 + spread),
        })  # fmt: skip
    return made


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """All figures as they were saved, ``drawn`` their texts; one theme is enough, places do not depend on it."""
    saved = []
    draw_text = Text.draw

    def note(self: Text, renderer: object) -> None:
        if self.get_text().strip():
            saved[-1].drawn.append(self)
        draw_text(self, renderer)

    def save(self: Figure, path: Path, **settings: object) -> None:
        self.drawn = []
        saved.append(self)
        monkeypatch.setattr(Text, 'draw', note)
        self.canvas.draw()
        monkeypatch.setattr(Text, 'draw', draw_text)
        Path(path).touch()

    monkeypatch.setattr(Figure, 'savefig', save)
    monkeypatch.setattr(plots, 'THEMES', (plots.LIGHT,))
    return saved


def boxes(figure: Figure) -> dict[Text, np.ndarray]:
    """The corners of all texts that are drawn, in pixels."""
    renderer = figure.canvas.get_renderer()
    return {text: Text.get_window_extent(text, renderer).extents for text in figure.drawn}


def assert_readable(figure: Figure) -> None:
    found = boxes(figure)
    width, height = figure.canvas.get_width_height()
    for text, (left, low, right, high) in found.items():
        assert left >= -1 and low >= -1 and right <= width + 1 and high <= height + 1, text
    for (one, a), (other, b) in itertools.combinations(found.items(), 2):
        overlap = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        assert (overlap <= 1).any(), (one, other)


@pytest.mark.slow
@pytest.mark.parametrize(('count', 'seed', 'spread'), [(9, 0, 2.0), (9, 1, 0.02), (3, 2, 1.0), (2, 3, 1.0)])
def test_names_are_whole_and_apart(figures: list[Figure], tmp_path: Path, count: int, seed: int, spread: float) -> None:
    made = plots.draw_figures(methods(count, seed, spread), 'basicsr', '1280x720', tmp_path)
    assert list(made) == ['psnr_macs', 'psnr_time', 'clips', 'training']
    assert len(figures) == 4
    for figure in figures:
        assert_readable(figure)
        shown = ' '.join(text.get_text().replace('\n', ' ') for text in figure.drawn)
        for name in NAMES[:count]:
            assert name in shown or figure is figures[3]  # the training's has those that were trained


@pytest.mark.slow
def test_points_lie_where_the_figures_are(figures: list[Figure], tmp_path: Path) -> None:
    made = methods(4, 0, 1.0)
    plots.draw_figures(made, 'basicsr', '1280x720', tmp_path)
    points = [tuple(line.get_xydata()[0]) for line in figures[0].axes[0].lines if len(line.get_xydata()) == 1]
    assert points == [pytest.approx((method['macs'] / 1e9, method['psnr'])) for method in made[1:]]
    looks = {(line.get_color(), line.get_marker()) for line in figures[0].axes[0].lines}
    assert len(looks) == 4


@pytest.mark.slow
def test_crops_are_those_of_the_frames(tmp_path: Path) -> None:
    """Found again in the picture that was written: each crop is of one colour, its method's."""
    truth = np.zeros((120, 160, 3), np.uint8)
    colours = {'Net': (0, 0, 200), 'Other': (0, 180, 0)}
    frames = {}
    for name, colour in colours.items():
        frames[name] = truth.copy()
        frames[name][60:120, 40:120] = colour
    frames['Ground truth'] = truth
    crop = Crop('clip', 0, 60, 40, 1.0, '00000000')
    draw_crops([crop], [frames], {'Net': 0, 'Other': 1}, tmp_path)
    for theme in plots.THEMES:
        picture = cv2.imread(str(tmp_path / f'crops_{theme.name}.png')).astype(int)
        for colour in colours.values():
            place = np.argwhere((abs(picture - colour) <= 2).all(axis=2))
            (top, left), (low, right) = place.min(axis=0), place.max(axis=0)
            assert (low - top + 1) * (right - left + 1) == len(place)  # a whole rectangle
            assert (right - left + 1) / (low - top + 1) == pytest.approx(80 / 60, rel=0.03)


@pytest.mark.slow
def test_crops_page_is_readable(figures: list[Figure], tmp_path: Path) -> None:
    frame = np.zeros((120, 160, 3), np.uint8)
    frames = {name: frame for name in [*NAMES, 'Ground truth']}
    crops = [Crop(clip, 0, 30, 40, 1.0, '00000012') for clip in CLIPS]
    draw_crops(crops, [frames] * 3, {name: i for i, name in enumerate(NAMES)}, tmp_path)
    assert_readable(figures[0])


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize('theme', plots.THEMES, ids=lambda theme: theme.name)
def test_colours_stand_out_and_differ(theme: plots.Theme) -> None:
    def contrast(colour: str) -> float:
        high, low = sorted((luminance(colour), luminance(theme.background)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    assert contrast(theme.text) > 7
    assert min(map(contrast, theme.methods)) >= 3
    looks = {plots.MarkerStyle.of(number, theme) for number in range(72)}
    assert len(looks) == 72


def test_without_matplotlib_the_cure_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / 'empty.yml').write_text('{}')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(DBLRError, match=r"pip install 'dblr_plugin\[benchmark\]'"):
        main(['benchmark', '-opt', str(tmp_path / 'empty.yml')])
