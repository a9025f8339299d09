"""Reads and checks a benchmark file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from dblr_plugin.benchmark.methods import Method, settle_methods
from dblr_plugin.benchmark.quoted import QuotedTable, read_quotes
from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.evaluation import Protocol, choose_protocols, with_metrics
from dblr_plugin.options.option_file import check_section
from dblr_plugin.options.schema import ALWAYS, Name
from dblr_plugin.value_types import Constraint
from dblr_plugin.yaml_file import Located, read_option_file

__all__ = ['Plan', 'read_plan']

SIZE = (1280, 720)  # for which operations are counted where nothing is timed
_SIZE = re.compile(r'([1-9]\d*)x([1-9]\d*)')


class TimingSection(TypedDict, total=False):
    """``timing``."""

    size: Annotated[str, Constraint('such as 1280x720', _SIZE.fullmatch), ALWAYS]  # of the frames, width x height
    seconds: Annotated[float, Constraint('from 0', lambda v: v >= 0), ALWAYS]  # for all rounds together


class BenchmarkFile(TypedDict, total=False):
    """A whole file."""

    name: Annotated[Name, ALWAYS]
    prepare: str | None  # the command that makes the data, for the report, and for those who lack them
    set: dict | None  # settings for all methods
    protocols: str | list[str] | None
    metrics: str | list[str] | None  # beside the protocols' own
    timing: TimingSection | None  # without it nothing is timed
    lpips: str | None  # AlexNet's weights; without it those in torch's cache, if they are there
    quoted: str | None  # published figures, to stand beside the measured ones
    methods: Annotated[dict, Constraint('with at least one method', bool), ALWAYS]


@dataclass(frozen=True)
class Plan:
    """What a benchmark file asks for.

    Attributes:
        path: The file.
        name: The benchmark's.
        prepare: How its data are made, if the file says it.
        protocols: By which frames are scored, with the metrics of the file; the first one also validates trainings.
        size: Width and height for which operations are counted, and which is timed.
        seconds: For timing; None to leave it out.
        lpips: AlexNet's weights, if they are named.
        quoted: Published figures and, first, the name of their data set.
        methods: By name, each after the one it starts from.
    """

    path: Path
    name: str
    prepare: str | None
    protocols: list[Protocol]
    size: tuple[int, int]
    seconds: float | None
    lpips: Path | None
    quoted: tuple[str, list[QuotedTable]] | None
    methods: dict[str, Method]

    @property
    def folder(self) -> Path:
        """Where everything but the trainings is written."""
        return Path('benchmarks') / self.name

    def wanted(self, names: Sequence[str]) -> list[Method]:
        """The methods of these names, or all, and those they start from.

        Raises:
            DBLRError: There is no such method.
        """
        for name in names:
            if name not in self.methods:
                raise DBLRError(f"--only: no method is called '{name}'{nearest(name, self.methods) or _known(self)}")
        chosen = set(names or self.methods)
        for method in reversed(self.methods.values()):
            if method.name in chosen and method.start is not None:
                chosen.add(method.start)
        return [method for method in self.methods.values() if method.name in chosen]


def _known(plan: Plan) -> str:
    return f'; there are {", ".join(plan.methods)}'


def read_plan(path: str | Path) -> Plan:
    """Reads and checks a benchmark file, and every option file with the settings it gets.

    Raises:
        DBLRError: One message that lists the first fault of each method, each with file and line.
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
        root.value['lpips'].fail(f"lpips: {lpips} is no file; name torchvision's weights of AlexNet, or write ~")
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
    """What is read; a fault is reported with the place of the key."""
    try:
        return read()
    except DBLRError as error:
        root.at(key).fail(f'{key}: {error}')
