"""How all pictures of a report look: in light and dark, told apart by shape as well as colour, labelled where they are.

GitHub shows a page in the reader's scheme, so each picture is drawn twice, on the page's own background.
"""

from __future__ import annotations

import importlib.util
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

__all__ = [
    'DARK',
    'LIGHT',
    'THEMES',
    'MarkerStyle',
    'Theme',
    'draw',
    'label_ends',
    'label_points',
    'require_matplotlib',
    'wrapped',
]

DPI = 120
GAP = 3  # pixels between labels


@dataclass(frozen=True)
class Theme:
    """Colours on a background.

    Attributes:
        name: Part of the pictures' names.
        background, text, grid: Hex colours.
        methods: Those of methods in order, each with a contrast of at least 3 to the background, and chosen so that
            neighbours stay apart for the colour-blind (after Okabe and Ito).
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
# nine and eight share no factor, so that 72 methods differ
_MARKERS = 'os^DvPX*p'


@dataclass(frozen=True)
class MarkerStyle:
    """How a method is drawn, by its number in the report."""

    colour: str
    marker: str

    @classmethod
    def of(cls, number: int, theme: Theme) -> MarkerStyle:
        """Returns that of a method, by its number in the report."""
        return cls(theme.methods[number % len(theme.methods)], _MARKERS[number % len(_MARKERS)])


def draw(folder: Path, name: str, size: tuple[float, float], paint: Callable[[Figure, Theme], None]) -> None:
    """Draws a picture in both themes, to ``<name>_light.png`` and ``<name>_dark.png``.

    Args:
        folder: Where to.
        name: The picture's.
        size: Width and height in inches.
        paint: Draws onto an empty figure.
    """
    make_folder(folder)
    for theme in THEMES:
        with _figure(size, theme) as figure:
            paint(figure, theme)
            with atomic_write(folder / f'{name}_{theme.name}.png') as partial:
                # without metadata, so that the same figures give the same file
                figure.savefig(partial, format='png', metadata={'Software': None})


def require_matplotlib() -> None:
    """Raises DBLRError if it is not installed."""
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
    """A method's name in lines of at most so many letters."""
    return '\n'.join(textwrap.wrap(name, width)) or name


def label_points(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    levels: Sequence[float] = (),
) -> list[Annotation]:
    """Writes a name beside each point where it covers no point, no level and no other name, and is inside the axes.

    Each name tries places around its point, the nearest first; from far away a line leads back. To be called when
    all else is drawn.

    Args:
        ax: The axes.
        points: In data coordinates.
        names: One for each.
        colours: One for each.
        levels: Where horizontal lines run.
    """
    renderer = _settle(ax)
    frame, pixels = ax.get_window_extent(), ax.transData.transform(points)
    taken = [_box(x, y, 7, 7) for x, y in pixels]
    heights = [ax.transData.transform((points[0][0], level))[1] for level in levels]
    taken += [_box(frame.x0, height, frame.width, 1) for height in heights]
    labels = []
    for point, pixel, name, colour in zip(points, pixels, names, colours, strict=True):
        label = ax.annotate(
            wrapped(name), point, (0, 0), textcoords='offset pixels', ha='center', va='center', color=colour,
            fontsize=9, arrowprops={'arrowstyle': '-', 'color': colour, 'linewidth': 0.7, 'shrinkB': 5},
        )  # fmt: skip
        size = _text_box(label, renderer)
        offset, box = _place(pixel, size.width, size.height, frame, taken)
        label.set_position(offset)
        if math.hypot(*offset) < max(size.width, size.height) / 2 + 20:  # near enough without a line
            assert label.arrow_patch is not None  # as there are arrowprops
            label.arrow_patch.set_visible(False)
        taken.append(box)
        labels.append(label)
    return labels


def _settle(ax: Axes) -> RendererBase:
    """Lays the figure of the axes out, with room for all that is in it, and leaves it so."""
    figure = cast('Figure', ax.figure)  # none of a report's is part of another
    figure.draw_without_rendering()
    figure.set_layout_engine('none')
    return cast('FigureCanvasAgg', figure.canvas).get_renderer()


def _text_box(label: Annotation, renderer: RendererBase) -> Bbox:
    """Of the text alone, without the line that leads to it."""
    from matplotlib.text import Text

    return Text.get_window_extent(label, renderer)


def _place(
    pixel: tuple[float, float], width: float, height: float, frame: Bbox, taken: Sequence[Bbox]
) -> tuple[tuple[float, float], Bbox]:
    """The nearest free offset of a label's middle from its point; where nothing is free, the least covered."""
    options = []
    for distance in range(11, 180, 7):
        for step in range(16):
            angle = step * math.pi / 8
            # the label's edge, not its middle, is that far from the point
            x = math.cos(angle) * (distance + width / 2)
            y = math.sin(angle) * (distance + height / 2)
            box = _box(pixel[0] + x, pixel[1] + y, width / 2 + GAP, height / 2 + GAP)
            covered = sum(_overlap(box, other) for other in taken)
            outside = box.width * box.height - _overlap(box, frame)
            if covered + outside < 1e-6:
                return (x, y), box
            options.append((covered + 10 * outside, (x, y), box))
    _, offset, box = min(options, key=lambda option: option[0])
    return offset, box


def _box(x: float, y: float, half_width: float, half_height: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox([[x - half_width, y - half_height], [x + half_width, y + half_height]])


def _overlap(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share, in square pixels."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0) * max(height, 0)


def label_ends(
    ax: Axes, ends: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str]
) -> list[Annotation]:
    """Writes names at the right of the axes, beside the ends of lines, pushed apart where they would overlap."""
    labels = []
    for end, name, colour in zip(ends, names, colours, strict=True):
        label = ax.annotate(
            wrapped(name, 24), end, (1.04, 0.5), textcoords='axes fraction', ha='left', va='center', color=colour,
            fontsize=9, arrowprops={'arrowstyle': '-', 'color': colour, 'linewidth': 0.7, 'relpos': (0, 0.5)},
        )  # fmt: skip
        labels.append(label)
    renderer, frame = _settle(ax), ax.get_window_extent()
    heights = [_text_box(label, renderer).height + GAP for label in labels]
    wanted = [ax.transData.transform(end)[1] for end in ends]
    for label, y in zip(labels, _apart(wanted, heights, frame.y0, frame.y1), strict=True):
        label.set_position((1.04, (y - frame.y0) / frame.height))
    return labels


def _apart(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Places for boxes of these heights, near the wanted ones and in their order, that do not overlap."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places, floor = list(wanted), low
    for i in order:
        places[i] = max(wanted[i], floor + heights[i] / 2)
        floor = places[i] + heights[i] / 2
    ceiling = max(high, low + sum(heights))
    for i in reversed(order):
        places[i] = min(places[i], ceiling - heights[i] / 2)
        ceiling = places[i] - heights[i] / 2
    return places
