"""A report's tables: the same rows as Markdown, for people, and as CSV, for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ['Column', 'best_of', 'cell', 'csv_table', 'markdown_row', 'markdown_table']


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        key: Of the figures in rows, and of the column in CSV.
        title: In Markdown.
        shown: A figure as Markdown shows it.
        better: Which figures are, if any.
    """

    key: str
    title: str
    shown: Callable[[float], str]
    better: Literal['higher', 'lower'] | None = None


def best_of(column: Column, values: Iterable[float | str | None]) -> float | None:
    """The best of a column's figures; None if there are not two to compare."""
    numbers = [float(value) for value in values if value is not None]
    if column.better is None or len(numbers) < 2:
        return None
    return max(numbers) if column.better == 'higher' else min(numbers)


def cell(column: Column, value: float | str | None, best: float | None) -> str:
    """A figure in Markdown: bold if it is shown like the best one, a dash if there is none."""
    if value is None:
        return '–'
    number = float(value)  # JSON has infinity as a string
    text = column.shown(number) if math.isfinite(number) else '∞'
    return f'**{text}**' if best is not None and text == column.shown(best) else text


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a table; a bar in a cell does not end it."""
    return '| ' + ' | '.join(text.replace('|', '\\|') for text in cells) + ' |'


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text, and all others are right-aligned."""
    lines = [markdown_row(head), '|:--|' + '--:|' * (len(head) - 1)]
    return '\n'.join([*lines, *map(markdown_row, rows)])


def csv_table(keys: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """The rows with full precision; empty where there is no figure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
