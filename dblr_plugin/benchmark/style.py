"""How all pictures of a report look: in light and dark, methods distinguished by shape as well as colour.

GitHub shows a page in the reader's scheme, so each picture is drawn twice, on the page's own background.
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    'DARK',
    'LIGHT',
    'THEMES',
    'MarkerStyle',
    'Theme',
    'draw',
    'legend',
    'require_matplotlib',
    'wrapped',
]

DPI = 120


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


def legend(ax: Axes) -> None:
    """Names what has a label, in a column at the right of the axes."""
    ax.legend(loc='upper left', bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=9)
