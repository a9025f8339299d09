"""Published figures, each with its source and how it was measured, from a file that users can extend.

They stand beside measured ones and are never mixed with them: the same weights move by up to 0.7 dB between protocols.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from dblr_plugin.errors import nearest
from dblr_plugin.link import options_folder
from dblr_plugin.metrics.protocols import PROTOCOLS
from dblr_plugin.options import read_option_file
from dblr_plugin.options.located import Located
from dblr_plugin.options.typed import Must, fault

__all__ = ['UNSTATED', 'QuotedFigure', 'QuotedTable', 'default_quotes', 'read_quotes']

#: What stands for the protocol where a source does not say it.
UNSTATED = 'unstated'

_Text = Annotated[str, Must('that is not empty', lambda v: bool(v.strip()))]
_PSNR = Annotated[float, Must('of dB above 0', lambda v: v > 0)]
_SSIM = Annotated[float, Must('from -1 to 1', lambda v: -1 <= v <= 1)]
_Protocol = Annotated[str, Must(f'among {", ".join(PROTOCOLS)}, {UNSTATED}', lambda v: v in PROTOCOLS or v == UNSTATED)]


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


def default_quotes() -> Path:
    """The file of figures on DVD that comes with the plugin."""
    return options_folder() / 'quoted_DVD.yml'


def read_quotes(path: str | Path) -> tuple[str, list[QuotedTable]]:
    """Reads a file of quoted figures.

    Args:
        path: YAML; ``options/quoted_DVD.yml`` shows its form.

    Returns:
        The data set's name, and the tables, in order.

    Raises:
        DBLRError: Naming file and line: it cannot be read, a key is unknown or missing, or a value does not fit.
    """
    fields = _fields(read_option_file(path), '', {'dataset': _Text, 'tables': dict})
    tables = fields['tables'].entries('tables')
    return fields['dataset'].value, [_table(str(name), entry) for name, entry in tables.items()]


def _table(name: str, here: Located) -> QuotedTable:
    trail = f'tables.{name}'
    fields = _fields(here, trail, {'source': _Text, 'protocol': _Protocol, 'figures': dict}, {'note': _Text})
    methods = fields.pop('figures').entries(f'{trail}.figures')
    figures = tuple(_figure(str(method), entry, f'{trail}.figures.{method}') for method, entry in methods.items())
    return QuotedTable(name, figures=figures, **{key: entry.value for key, entry in fields.items()})


def _figure(method: str, here: Located, trail: str) -> QuotedFigure:
    fields = _fields(here, trail, {'psnr': _PSNR}, {'ssim': _SSIM, 'clips': dict[str, _PSNR]})
    return QuotedFigure(method, **{key: entry.plain() for key, entry in fields.items()})


def _fields(
    here: Located, trail: str, required: Mapping[str, Any], optional: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Located]:
    """A section's entries, once its keys and the types of their values are right."""
    known = {**required, **optional}
    entries = here.entries(trail)
    for key, entry in entries.items():
        name = f'{trail}.{key}' if trail else str(key)
        if key not in known:
            hint = nearest(key, known) or f'; known here: {", ".join(known)}'
            entry.fail(f"unknown key '{name}'{hint}")
        found = fault(entry.plain(), known[key])
        if found:
            entry.fail(f'{name} {found}')
    missing = ', '.join(key for key in required if key not in entries)
    if missing:
        here.fail(f'{trail or "the file"} lacks {missing}; add what is missing')
    return dict(entries)
