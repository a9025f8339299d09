"""Option sections of other authors' classes: a missing key is reported like any other fault."""

from __future__ import annotations

from typing import Any, NoReturn

from dblr_plugin.errors import DBLRError

__all__ = ['ForeignSection']


class ForeignSection(dict):
    """The options of a class that is not ours.

    Args:
        values: The keys and values.
        where: Place and name of the section, for messages.
        reader: The class that reads it.
    """

    def __init__(self, values: dict[str, Any], where: str, reader: str) -> None:
        super().__init__(values)
        self.where, self.reader = where, reader

    def __missing__(self, key: str) -> NoReturn:
        raise _MissingKeyError(f'{self.where} lacks {key}, which {self.reader} or its loader needs; add it')

    def __reduce__(self) -> tuple[Any, ...]:
        return ForeignSection, (dict(self), self.where, self.reader)


class _MissingKeyError(DBLRError, KeyError):
    """Both what we show in one line and what code that asks forgiveness expects."""

    __str__ = Exception.__str__
