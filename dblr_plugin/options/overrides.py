"""Settings from the command line: ``--set KEY=VALUE``, BasicSR's ``--force_yml``, and ``--protocol NAME``.

They are applied to the option file's values before validation, so they are checked in the same way.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from dblr_plugin.errors import DBLRError
from dblr_plugin.yaml_file import Located, parse

__all__ = ['Override', 'apply', 'take_overrides']


@dataclass(frozen=True)
class Override:
    """A setting, as typed.

    Attributes:
        option: ``--set``, ``--force_yml`` or ``--protocol``.
        text: ``KEY=VALUE``, or the name of a protocol.
    """

    option: str
    text: str

    @property
    def origin(self) -> str:
        """The setting's name in messages."""
        return f'{self.option} {self.text}'

    def parsed(self) -> tuple[list[str], Located]:
        """Returns the key, split into sections, and the value, parsed as YAML; Python's ``None`` means null too.

        Raises:
            DBLRError: There is no ``=``, a part of the key is empty, or the value is not YAML.
        """
        key, equals, value = self.text.partition('=')
        if self.option == '--protocol':
            key, equals, value = 'val.protocol', '=', self.text
        keys = re.split('[.:]', key.strip())  # BasicSR's --force_yml uses colons
        if not equals or not all(keys):
            raise DBLRError(
                f'{self.origin}: write {self.option} KEY=VALUE, such as {self.option} train.total_iter=1000'
            )
        value = value.strip()
        return keys, parse('' if value.lower() == 'none' else value, self.origin, lines=False)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DBLRError(f'{message}; write --set KEY=VALUE or --protocol NAME')


def take_overrides(argv: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Extracts our options from a command line; they may be anywhere and repeated.

    Args:
        argv: Arguments, without the program.

    Returns:
        The settings in order, ``--protocol`` first, and the remaining arguments, for BasicSR.

    Raises:
        DBLRError: An option has no value.
    """
    overrides: list[Override] = []
    # --protocol goes first: arguments after it may still belong to a preceding --set or --force_yml
    for options in (['--protocol'], ['--set', '--force_yml']):
        parser = _Parser(add_help=False)
        for option in options:
            nargs = 1 if option == '--protocol' else '+'
            made = functools.partial(Override, option)
            parser.add_argument(option, dest='overrides', nargs=nargs, action='extend', type=made, default=overrides)
        given, argv = parser.parse_known_args(argv)
        overrides = given.overrides
    return overrides, list(argv)


def apply(overrides: Sequence[Override], root: Located) -> None:
    """Applies settings to an option file's values, creating missing sections.

    Raises:
        DBLRError: A setting is malformed, its path contains something that is not a section, or it names a protocol
            but there is no ``val`` section.
    """
    for override in overrides:
        (*sections, key), setting = override.parsed()
        if override.option == '--protocol' and root.value.get('val', Located(None, '')).value is None:
            raise DBLRError(f'{override.origin}: the option file has no val section; add one')
        here = root
        for depth, name in enumerate(sections, 1):
            here = here.value.setdefault(name, Located({}, override.origin))
            if here.value is None:
                here.value = {}
            if not isinstance(here.value, dict):
                trail = '.'.join(sections[:depth])
                raise DBLRError(f'{override.origin}: {trail} holds no keys; set {trail} itself')
        here.value[key] = setting
