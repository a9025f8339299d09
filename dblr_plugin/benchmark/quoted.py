"""Published figures, each with its source and how it was measured, from a file that users can extend.

They stand beside measured ones and are never mixed with them: the same weights move by up to 0.7 dB between protocols.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypedDict

from dblr_plugin.evaluation.protocols import PROTOCOLS
from dblr_plugin.options.option_file import check_section
from dblr_plugin.options.schema import ALWAYS
from dblr_plugin.value_types import Constraint
from dblr_plugin.yaml_file import read_option_file

__all__ = ['UNSTATED', 'QuotedFigure', 'QuotedTable', 'read_quotes']

#: What stands for the protocol where a source does not say it.
UNSTATED = 'unstated'

_Text = Annotated[str, Constraint('that is not empty', lambda v: bool(v.strip()))]
_PSNR = Annotated[float, Constraint('of dB above 0', lambda v: v > 0)]
_SSIM = Annotated[float, Constraint('from -1 to 1', lambda v: -1 <= v <= 1)]
_Protocol = Annotated[
    str, Constraint(f'among {", ".join(PROTOCOLS)}, {UNSTATED}', lambda v: v in PROTOCOLS or v == UNSTATED)
]


class FigureSection(TypedDict, total=False):
    """What a file says of one method; :class:`QuotedFigure` explains it."""

    psnr: Annotated[_PSNR, ALWAYS]
    ssim: _SSIM
    clips: dict[str, _PSNR]


class TableSection(TypedDict, total=False):
    """What it says of one source; :class:`QuotedTable` explains it."""

    source: Annotated[_Text, ALWAYS]
    protocol: Annotated[_Protocol, ALWAYS]
    note: _Text
    figures: Annotated[dict[str, FigureSection], ALWAYS]


class QuotedFile(TypedDict, total=False):
    """A whole file."""

    dataset: Annotated[_Text, ALWAYS]
    tables: Annotated[dict[str, TableSection], ALWAYS]


@dataclass(frozen=True)
class QuotedFigure:
    """What was published of one method.

    Attributes:
        method: Its name.
        psnr: In dB, for the data set.
        ssim: For the data set.
        clips: PSNR by clip, in dB.
    """

    method: str
    psnr: float
    ssim: float | None = None
    clips: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class QuotedTable:
    """Figures from one source.

    Attributes:
        name: What the file calls it.
        source: Where it was published.
        protocol: One of :data:`PROTOCOLS`, or ``unstated``: such figures compare with none of ours.
        figures: One for each method, in order.
        note: What else a reader must know.
    """

    name: str
    source: str
    protocol: str
    figures: tuple[QuotedFigure, ...]
    note: str | None = None


def read_quotes(path: str | Path) -> tuple[str, list[QuotedTable]]:
    """Reads a file of quoted figures.

    Args:
        path: YAML; ``options/quoted_DVD.yml`` shows its form.

    Returns:
        The data set's name, and the tables, in order.

    Raises:
        DBLRError: Naming file and line: it cannot be read, a key is unknown or missing, or a value does not fit.
    """
    root = read_option_file(path)
    check_section(root, QuotedFile)
    content = root.plain()
    return content['dataset'], [_table(str(name), table) for name, table in content['tables'].items()]


def _table(name: str, table: TableSection) -> QuotedTable:
    figures = tuple(QuotedFigure(str(method), **figure) for method, figure in table['figures'].items())
    return QuotedTable(name, table['source'], table['protocol'], figures, table.get('note'))
