"""Draws a report's plots: quality against cost, clips, training curves."""

from __future__ import annotations

import importlib.util
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    'DARK', 'LIGHT', 'THEMES', 'MarkerStyle', 'Pictured', 'Theme', 'draw', 'draw_figures', 'legend',
    'require_matplotlib', 'validations', 'wrapped',
]  # fmt: skip

# GitHub pages follow the reader's colour scheme, so each plot is drawn twice, with a matching background.

DPI = 120


@dataclass(frozen=True)
class Theme:
    """A background and its colours.

    Attributes:
        name: Part of the file names.
        background, text, grid: Hex colours.
        methods: Colours of methods in order, each with a contrast of at least 3 to the background, and chosen so that
            colour-blind readers can tell neighbours apart (after Okabe and Ito).
    """

    name: str
    background: str
    text: str
    grid: str
    methods: tuple[str, ...]


LIGHT = Theme(
    'light', '#ffffff', '#1f2328', '#d1d9e0',
    ('#0072b2', '#c24e00', '#00805d', '#a8508a', '#8a6100', '#2a86bd', '#5b3fa0', '#5f6670'),
)  # fmt: skip
DARK = Theme(
    'dark', '#0d1117', '#e6edf3', '#3d444d',
    ('#56b4e9', '#ff8f4d', '#2fc79a', '#f0a3cc', '#e8c14a', '#9ad8ff', '#b9a6ff', '#b7bec7'),
)  # fmt: skip
THEMES = (LIGHT, DARK)
# nine markers and eight colours have no common factor, so 72 methods look different
_MARKERS = 'os^DvPX*p'


@dataclass(frozen=True)
class MarkerStyle:
    """Colour and marker of a method."""

    colour: str
    marker: str

    @classmethod
    def of(cls, number: int, theme: Theme) -> MarkerStyle:
        """Returns the style of a method by its number in the report."""
        return cls(theme.methods[number % len(theme.methods)], _MARKERS[number % len(_MARKERS)])


def draw(folder: Path, name: str, size: tuple[float, float], paint: Callable[[Figure, Theme], None]) -> None:
    """Draws a plot in both themes, to ``<name>_light.png`` and ``<name>_dark.png``.

    Args:
        folder: Output folder; created if missing.
        name: Name of the plot.
        size: Width and height in inches.
        paint: Draws onto an empty figure.
    """
    make_folder(folder)
    for theme in THEMES:
        with _figure(size, theme) as figure:
            paint(figure, theme)
            with atomic_write(folder / f'{name}_{theme.name}.png') as partial:
                # no metadata, so that the same figures give the same file
                figure.savefig(partial, format='png', metadata={'Software': None})


def require_matplotlib() -> None:
    """Raises DBLRError if matplotlib is not installed."""
    if importlib.util.find_spec('matplotlib') is None:
        raise DBLRError("plots need matplotlib: pip install 'dblr_plugin[benchmark]'")


@contextmanager
def _figure(size: tuple[float, float], theme: Theme) -> Iterator[Figure]:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_settings(theme)):
        yield FigureCanvasAgg(Figure(figsize=size, layout='constrained')).figure


def _settings(theme: Theme) -> dict:
    inks = ('text.color', 'axes.labelcolor', 'xtick.color', 'ytick.color')
    grounds = ('figure.facecolor', 'savefig.facecolor', 'axes.facecolor')
    return {
        **dict.fromkeys(inks, theme.text),
        **dict.fromkeys(grounds, theme.background),
        'axes.edgecolor': theme.grid,
        'axes.grid': True,
        'axes.axisbelow': True,
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.titlesize': 11,
        'axes.titlelocation': 'left',
        'font.size': 10,
        'grid.color': theme.grid,
        'grid.linewidth': 0.6,
        'savefig.dpi': DPI,
        'figure.dpi': DPI,
    }


def wrapped(name: str, width: int = 20) -> str:
    """Wraps a method's name into lines of at most ``width`` characters."""
    return '\n'.join(textwrap.wrap(name, width)) or name


def legend(ax: Axes) -> None:
    """Adds a one-column legend to the right of the axes."""
    ax.legend(loc='upper left', bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)


#: A method as needed for plots: ``number`` (its position in the report), ``name``, ``psnr`` (dB), ``clips`` (clip ->
#: PSNR), ``macs``, ``ms`` (per frame, None if not timed), ``curve`` (iterations and PSNR, for trained ones).
Pictured = Mapping


def draw_figures(methods: Sequence[Pictured], protocol: str, size: str, folder: Path) -> dict[str, str]:
    """Draws all plots that have figures.

    Args:
        methods: The measured methods; one without operations is a reference, drawn as a line.
        protocol: The protocol PSNR was measured by.
        size: Frame size for which cost was measured.
        folder: Output folder; created if missing.

    Returns:
        Plot name -> what it shows.
    """
    psnr = f'PSNR, {protocol} (dB)'
    made = {}
    for name, key, title in (
        ('psnr_macs', 'macs', f'multiply-adds for a frame of {size} (G)'),
        ('psnr_time', 'ms', f'time for a frame of {size} (ms)'),
    ):
        shown = [method for method in methods if method['macs'] != 0 and method[key] is not None]
        if shown:
            lines = [method for method in methods if method['macs'] == 0]
            draw(folder, name, (8, max(5, 0.45 * len(methods))), partial(_paint_cost, shown, lines, key, title, psnr))
            made[name] = f'PSNR against {title}'
    draw(folder, 'clips', _clips_size(methods), partial(_paint_clips, methods, psnr))
    made['clips'] = 'PSNR of each clip'
    trained = [method for method in methods if method['curve']]
    if trained:
        lines = [method for method in methods if method['macs'] == 0]
        draw(folder, 'training', (8, max(5, 0.45 * len(methods))), partial(_paint_curves, trained, lines, psnr))
        made['training'] = 'PSNR of the validations while training'
    return made


def _finite(methods: Sequence[Pictured]) -> list[Pictured]:
    """Drops methods with infinite PSNR (equal frames), which an axis cannot show."""
    return [method for method in methods if math.isfinite(method['psnr'])]


def _paint_cost(
    methods: Sequence[Pictured],
    references: Sequence[Pictured],
    key: str,
    title: str,
    psnr: str,
    figure: Figure,
    theme: Theme,
) -> None:
    ax = figure.subplots()
    methods, scale = _finite(methods), 1e-9 if key == 'macs' else 1
    for method in methods:
        look = MarkerStyle.of(method['number'], theme)
        point = method[key] * scale, method['psnr']
        ax.plot(*point, look.marker, color=look.colour, markersize=8, label=wrapped(method['name'], 24))
    ax.set(xscale='log', xlabel=title, ylabel=psnr)
    ax.margins(0.2)
    _plain_ticks(ax)
    _draw_levels(ax, _finite(references), theme)
    legend(ax)


def _draw_levels(ax: Axes, references: Sequence[Pictured], theme: Theme) -> None:
    for method in references:
        colour, label = MarkerStyle.of(method['number'], theme).colour, wrapped(method['name'], 24)
        ax.axhline(method['psnr'], color=colour, linestyle='--', linewidth=1, label=label)


def _plain_ticks(ax: Axes) -> None:
    """Labels ticks as 20 or 300, not as powers, even if the axis spans less than a decade."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    low, high = ax.get_xlim()
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps) if high / low > 10 else MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(StrMethodFormatter('{x:,.10g}'))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _clips_size(methods: Sequence[Pictured]) -> tuple[float, float]:
    rows, columns = _grid(len(methods[0]['clips']))
    lines = sum(wrapped(method['name'], 26).count('\n') + 1 for method in methods)
    return 1.9 + 2.4 * columns, 0.7 + rows * (0.55 + 0.21 * lines)


def _grid(panels: int) -> tuple[int, int]:
    columns = min(4, panels)
    return -(-panels // columns), columns


def _paint_clips(methods: Sequence[Pictured], psnr: str, figure: Figure, theme: Theme) -> None:
    """Draws one panel per clip and one bar per method; bars start at the reference, if any, as 0 dB means nothing."""
    clips = list(methods[0]['clips'])
    rows, columns = _grid(len(clips))
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    reference = next((method for method in methods if method['macs'] == 0), None)
    bars = [method for method in methods if method is not reference]
    heights = [wrapped(method['name'], 26).count('\n') + 1 for method in bars]
    places = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    base = {clip: reference['clips'][clip] if reference else 0 for clip in clips}
    lengths = [method['clips'][clip] - base[clip] for method in bars for clip in clips]
    longest = max([abs(length) for length in lengths if math.isfinite(length)] or [1]) or 1
    for ax, clip in zip(panels, clips, strict=False):
        for method, place in zip(bars, places, strict=True):
            length = method['clips'][clip] - base[clip]
            length = length if math.isfinite(length) else longest
            ax.barh(place, length, 0.75, color=MarkerStyle.of(method['number'], theme).colour)
            ax.text(max(length, 0) + longest * 0.03, place, f'{method["clips"][clip]:.2f}', va='center', fontsize=8)
        title = f'{clip}, {reference["name"]} {base[clip]:.2f}' if reference else clip
        ax.set_title(wrapped(title, 28), fontsize=9)
        ax.set_yticks(places, [wrapped(method['name'], 26) for method in bars])
        ax.tick_params('y', length=0)
        ax.grid(False, axis='y')
        ax.axvline(0, color=theme.text, linewidth=0.8)
    for ax in panels[len(clips) :]:
        ax.set_axis_off()
    panels[0].invert_yaxis()  # shared by all
    panels[0].set_xlim(min([0, *(length for length in lengths if math.isfinite(length))]) * 1.1, longest * 1.3)
    figure.supxlabel(f'{psnr}, above that of {reference["name"]}' if reference else psnr, fontsize=10)


def _paint_curves(
    methods: Sequence[Pictured], references: Sequence[Pictured], psnr: str, figure: Figure, theme: Theme
) -> None:
    ax = figure.subplots()
    for method in methods:
        look, label = MarkerStyle.of(method['number'], theme), wrapped(method['name'], 24)
        ax.plot(*method['curve'], color=look.colour, marker=look.marker, markersize=6, label=label)
    _draw_levels(ax, references, theme)
    ax.set(xlabel='iteration', ylabel=psnr)
    legend(ax)


def validations(metrics_file: Path, protocol: str) -> tuple[list[int], list[float]] | None:
    """Iterations and PSNR of a training's validations under a protocol; None if there are none."""
    try:
        entries = json.loads(metrics_file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    found = [
        (e['iter'], float(e['mean']['psnr'])) for e in entries if e['protocol'] == protocol and 'psnr' in e['mean']
    ]
    found = sorted((i, value) for i, value in found if math.isfinite(value))
    return ([i for i, _ in found], [value for _, value in found]) if found else None
