"""Reads and checks a benchmark file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from dblr_plugin.benchmark.methods import Method, settle_methods
from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.evaluation.protocols import PROTOCOLS, Protocol, choose_protocols, with_metrics
from dblr_plugin.options.option_file import check_section
from dblr_plugin.options.schema import ALWAYS, Name
from dblr_plugin.value_types import Constraint
from dblr_plugin.yaml_file import Located, read_option_file

__all__ = ['UNSTATED', 'Plan', 'read_plan', 'read_quotes']

SIZE = (1280, 720)  # frame size for counting operations if nothing is timed
_SIZE = re.compile(r'([1-9]\d*)x([1-9]\d*)')


class TimingSection(TypedDict, total=False):
    """The ``timing`` section."""

    size: Annotated[str, Constraint('such as 1280x720', _SIZE.fullmatch), ALWAYS]  # of the frames, width x height
    seconds: Annotated[float, Constraint('from 0', lambda v: v >= 0), ALWAYS]  # for all rounds in total


class BenchmarkFile(TypedDict, total=False):
    """A benchmark file."""

    name: Annotated[Name, ALWAYS]
    prepare: str | None  # command that creates the data, shown in the report and if the data is missing
    set: dict | None  # settings for all methods
    protocols: str | list[str] | None
    metrics: str | list[str] | None  # in addition to the protocols' own
    timing: TimingSection | None  # without it, nothing is timed
    lpips: str | None  # AlexNet's weights; by default those in torch's cache, if any
    quoted: str | None  # published figures, shown next to the measured ones
    methods: Annotated[dict, Constraint('with at least one method', bool), ALWAYS]


@dataclass(frozen=True)
class Plan:
    """The contents of a benchmark file.

    Attributes:
        path: The file.
        name: Name of the benchmark.
        prepare: Command that creates the data, if the file has one.
        protocols: Protocols to score by, with the metrics of the file; the first is also used to validate training.
        size: Width and height of the frames for counting operations and timing.
        seconds: Time for timing; None to skip it.
        lpips: AlexNet's weights, if the file names them.
        quoted: Published figures, as returned by :func:`read_quotes`.
        methods: Methods by name, each after the one it starts from.
    """

    path: Path
    name: str
    prepare: str | None
    protocols: list[Protocol]
    size: tuple[int, int]
    seconds: float | None
    lpips: Path | None
    quoted: dict[str, Any] | None
    methods: dict[str, Method]

    @property
    def folder(self) -> Path:
        """The output folder for everything except training runs."""
        return Path('benchmarks', self.name)

    def wanted(self, names: Sequence[str]) -> list[Method]:
        """Returns the methods of these names, or all, together with those they start from.

        Raises:
            DBLRError: There is no such method.
        """
        for name in names:
            if name not in self.methods:
                hint = nearest(name, self.methods) or f'; there are {", ".join(self.methods)}'
                raise DBLRError(f"--only: no method is called '{name}'{hint}")
        chosen = set(names or self.methods)
        for method in reversed(self.methods.values()):
            if method.name in chosen and method.start is not None:
                chosen.add(method.start)
        return [method for method in self.methods.values() if method.name in chosen]


def read_plan(path: str | Path) -> Plan:
    """Reads and checks a benchmark file, and every option file with its settings applied.

    Raises:
        DBLRError: One message lists the first fault of each method, with file and line.
    """
    root = read_option_file(path)
    check_section(root, BenchmarkFile)
    value: Callable = {key: entry.plain() for key, entry in root.value.items()}.get
    protocols = _told(root, 'protocols', lambda: choose_protocols(value('protocols') or 'basicsr'))
    metrics = [value('metrics')] if isinstance(value('metrics'), str) else value('metrics') or []
    protocols = with_metrics(protocols, {name: {'type': name} for name in metrics})
    quoted = _told(root, 'quoted', lambda: read_quotes(value('quoted')) if value('quoted') else None)
    lpips = Path(value('lpips')) if value('lpips') else None
    if lpips is not None and not lpips.is_file():
        root.value['lpips'].fail(
            f"lpips: {lpips} is not a file; give torchvision's AlexNet weights, or ~ for those in torch's cache"
        )
    timing = value('timing')
    match = _SIZE.fullmatch(timing['size']) if timing else None
    return Plan(
        path=Path(path),
        name=value('name'),
        prepare=value('prepare'),
        protocols=protocols,
        size=(int(match[1]), int(match[2])) if match else SIZE,
        seconds=timing['seconds'] if timing else None,
        lpips=lpips,
        quoted=quoted,
        methods=settle_methods(root, value('name'), protocols, value('prepare')),
    )


def _told(root: Located, key: str, read: Callable[[], Any]) -> Any:
    """Returns what ``read`` returns; reports its faults with the location of the key."""
    try:
        return read()
    except DBLRError as error:
        root.at(key).fail(f'{key}: {error}')


# Quoted figures are shown next to measured ones but never mixed with them: the same frames score up to 1.5 dB
# higher by one protocol than by another (docs/evaluation.md).

#: Stands for the protocol if a source does not state it.
UNSTATED = 'unstated'

_Text = Annotated[str, Constraint('that is not empty', lambda v: bool(v.strip()))]
_PSNR = Annotated[float, Constraint('of dB above 0', lambda v: v > 0)]
_SSIM = Annotated[float, Constraint('from -1 to 1', lambda v: -1 <= v <= 1)]
_Protocol = Annotated[
    str, Constraint(f'among {", ".join(PROTOCOLS)}, {UNSTATED}', lambda v: v in PROTOCOLS or v == UNSTATED)
]


class FigureSection(TypedDict, total=False):
    """Published figures of one method."""

    psnr: Annotated[_PSNR, ALWAYS]  # for the data set
    ssim: _SSIM  # for the data set
    clips: dict[str, _PSNR]  # PSNR by clip


class TableSection(TypedDict, total=False):
    """Figures from one source."""

    source: Annotated[_Text, ALWAYS]  # where they were published
    protocol: Annotated[_Protocol, ALWAYS]  # unstated ones are comparable with none of ours
    note: _Text  # anything else the reader must know
    figures: Annotated[dict[str, FigureSection], ALWAYS]  # by method


class QuotedFile(TypedDict, total=False):
    """A file of quoted figures."""

    dataset: Annotated[_Text, ALWAYS]
    tables: Annotated[dict[str, TableSection], ALWAYS]


def read_quotes(path: str | Path) -> dict[str, Any]:
    """Reads a file of quoted figures.

    Args:
        path: YAML file in the format of ``options/quoted_DVD.yml``.

    Returns:
        As used in the report: ``data_set``, its name, and ``tables``, in order: ``name``, ``source``, ``protocol``,
        ``note`` (None if there is none) and ``figures``, each with ``method``, ``psnr`` in dB, ``ssim`` (None if it
        was not published) and ``clips``, PSNR by clip.

    Raises:
        DBLRError: The file cannot be read, a key is unknown or missing, or a value is invalid; with file and line.
    """
    root = read_option_file(path)
    check_section(root, QuotedFile)
    content = root.plain()
    tables = [
        {
            'note': None,
            **table,
            'name': str(name),
            'figures': [
                {'ssim': None, 'clips': {}, **figure, 'method': str(method)}
                for method, figure in table['figures'].items()
            ],
        }
        for name, table in content['tables'].items()
    ]
    return {'data_set': content['dataset'], 'tables': tables}
