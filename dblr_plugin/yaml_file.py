"""Reads option files and the command line's settings, and keeps the origin of each value for error messages.

YAML is read as in BasicSR, including anchors and merge keys, but ``1e-4`` is a number, as in YAML 1.2, without
``!!float``. A file with ``base: other.yml`` contains only its differences from that file. ``--set KEY=VALUE``,
BasicSR's ``--force_yml`` and ``--protocol NAME`` are applied before values are checked.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dblr_plugin.errors import DBLRError, first_line

__all__ = [
    'Located', 'Override', 'apply', 'import_files', 'parse', 'read_option_file', 'take_overrides', 'with_base',
]  # fmt: skip

_MERGE = 'tag:yaml.org,2002:merge'


@dataclass
class Located:
    """A value and its location."""

    value: Any  # key -> Located for a mapping, else the plain value; lists contain only plain values
    where: str  # file:line, or the command-line option

    def entries(self, trail: str) -> dict[str, Located]:
        """Returns the keys and values of a mapping; null counts as empty. Raises DBLRError for anything else."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            self.fail(f'{trail or "the file"} must hold keys and values')
        return self.value

    def at(self, trail: str) -> Located:
        """Returns the value at ``a.b.c``, or the innermost existing section on that path."""
        here = self
        for key in trail.split('.'):
            if not isinstance(here.value, dict) or key not in here.value:
                break
            here = here.value[key]
        return here

    def plain(self) -> Any:
        """Returns a copy without locations, as BasicSR expects."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        return list(self.value) if isinstance(self.value, list) else self.value

    def fail(self, message: str) -> NoReturn:
        """Raises DBLRError with the location before the message."""
        raise DBLRError(f'{self.where}: {message}')


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that numbers with an exponent need neither a decimal point nor a sign in the exponent."""


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$'),
    list('-+.0123456789'),
)


def parse(text: str, name: str, lines: bool = True) -> Located:
    """Parses YAML.

    Args:
        text: One document.
        name: Its name in messages: a path, or a command-line option.
        lines: Whether messages include line numbers.

    Raises:
        DBLRError: The text is not YAML, or a section has a duplicate key.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Located(None, name) if root is None else _Reader(loader, name, lines).located(root, root, '')
    except RecursionError as error:
        raise DBLRError(f'{name}: not an option file: its brackets or sections are nested too deep') from error
    except yaml.YAMLError as error:
        raise DBLRError(_described(error, text, name, lines)) from error


def _described(error: yaml.YAMLError, text: str, name: str, lines: bool) -> str:
    mark = getattr(error, 'problem_mark', None)
    line = text.count('\n', 0, getattr(error, 'position', 0)) if mark is None else mark.line
    said = [getattr(error, key, None) for key in ('context', 'problem', 'reason')]
    reason = ', '.join(filter(None, said)) or first_line(error)
    fix = '; write spaces instead' if r"'\t'" in reason else ''
    return f'{name}:{line + 1}: not valid YAML: {reason}{fix}' if lines else f'{name}: not valid YAML: {reason}{fix}'


def read_option_file(path: str | Path) -> Located:
    """Reads an option file and its base files, without checking their contents.

    Raises:
        DBLRError: A file cannot be read, is not YAML, or is based on itself.
    """
    return with_base(parse(_text(Path(path)), str(path)), Path(path))


def with_base(root: Located, path: Path, derived: tuple[Path, ...] = ()) -> Located:
    """Merges a file's values over those of its ``base``, section by section.

    A section with a different ``type`` replaces the base's section as a whole.

    Args:
        root: The file's values.
        path: The file; relative paths start in its folder.
        derived: The files that are based on this one.

    Raises:
        DBLRError: The base cannot be read, is not YAML, or is itself based on this file.
    """
    if not isinstance(root.value, dict) or 'base' not in root.value:
        return root
    base = root.value.pop('base')
    if not isinstance(base.value, str):
        base.fail('base must name an option file, such as train_DBLRNet.yml')
    below = path.parent / base.value
    if not below.is_file():
        base.fail(f'base: there is no file {below}; paths start in the folder of {path.name}')
    derived = *derived, path.resolve()
    if below.resolve() in derived:
        base.fail(f'base: {below} is itself based on this file; remove one of the two lines')
    return _merged(with_base(parse(_text(below), str(below)), below, derived), root)


def _merged(below: Located, above: Located) -> Located:
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    types = [section.value.get('type', Located(None, '')).plain() for section in (below, above)]
    if None not in types and types[0] != types[1]:
        return above
    lower = below.value
    entries = {key: _merged(lower[key], entry) if key in lower else entry for key, entry in above.value.items()}
    return Located(lower | entries, above.where)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except FileNotFoundError as error:
        raise DBLRError(f'{path}: no such option file (looked up from {Path.cwd()})') from error
    except UnicodeDecodeError as error:
        raise DBLRError(f'{path}: cannot be read as text, as it is not in UTF-8; save it as UTF-8') from error
    except OSError as error:
        raise DBLRError(f'{path}: cannot be read as text ({error})') from error


class _Reader:
    """Converts YAML nodes to values with locations."""

    def __init__(self, loader: _Loader, name: str, lines: bool) -> None:
        self.loader, self.name, self.lines = loader, name, lines
        self.open: list[yaml.Node] = []  # the mappings that enclose the current one

    def located(self, node: yaml.Node, key: yaml.Node, trail: str) -> Located:
        """Returns a node's value, with the location of its key."""
        where = self.where(key)
        if not isinstance(node, yaml.MappingNode):
            return Located(self.constructed(node, where, trail), where)
        if any(node is around for around in self.open):
            raise DBLRError(f'{where}: {trail} contains itself; write out what the alias should stand for')
        self.open.append(node)
        # an aliased section is copied at each use, as BasicSR removes keys from sections
        value = {
            name: self.located(child, key, f'{trail}.{name}' if trail else str(name))
            for name, (key, child) in self.pairs(node, trail).items()
        }
        self.open.pop()
        return Located(value, where)

    def constructed(self, node: yaml.Node, where: str, trail: str) -> Any:
        """Returns the value of a scalar or list; ``where`` and ``trail`` name it in messages."""
        try:
            return self.loader.construct_object(node, deep=True)
        except (ValueError, LookupError, AttributeError) as error:  # an invalid date or number, such as 2024-99-99
            raise DBLRError(f'{where}: {trail} cannot be read ({error}); put it in quotes if it is text') from error

    def pairs(self, node: yaml.Node, trail: str) -> dict[Any, tuple[yaml.Node, yaml.Node]]:
        """Returns key -> key and value nodes, including merged sections; the section's own come last and win."""
        if not isinstance(node, yaml.MappingNode):
            raise DBLRError(f'{self.where(node)}: << takes a section, such as <<: *name')
        own: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for section in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = self.pairs(section, trail) | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise DBLRError(f'{self.where(key)}: a key of {trail or "the file"} is not a plain word')
            name = self.constructed(key, self.where(key), f'a key of {trail or "the file"}')
            if name in own:
                raise DBLRError(f"{self.where(key)}: '{name}' appears twice in {trail or 'the file'}; remove one")
            own[name] = key, value
        return merged | own

    def where(self, node: yaml.Node) -> str:
        """Returns the location of a node."""
        return f'{self.name}:{node.start_mark.line + 1}' if self.lines else self.name


# ---------------------------------------------------------------------- settings from the command line


@dataclass(frozen=True)
class Override:
    """A setting, as typed."""

    option: str  # --set, --force_yml or --protocol
    text: str  # KEY=VALUE, or the name of a protocol

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


class _SettingsParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DBLRError(f'{message}; write --set KEY=VALUE or --protocol NAME')


def take_overrides(argv: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Extracts our options from a command line; they may be anywhere and repeated.

    Returns:
        The settings in order, ``--protocol`` first, and the remaining arguments, for BasicSR.

    Raises:
        DBLRError: An option has no value.
    """
    overrides: list[Override] = []
    # --protocol goes first: arguments after it may still belong to a preceding --set or --force_yml
    for options in (['--protocol'], ['--set', '--force_yml']):
        parser = _SettingsParser(add_help=False)
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


def import_files(paths: Iterable[str]) -> None:
    """Runs each file once in this process, so that it can register classes with BasicSR.

    Args:
        paths: Python files, relative to the working directory.

    Raises:
        DBLRError: A file is missing or fails.
    """
    for path in map(Path, paths):
        # a unique module name: two files may have the same name, and classes must not be registered twice
        name = f'dblr_imports_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}'
        if name in sys.modules:
            continue
        if path.suffix != '.py' or not path.is_file():
            raise DBLRError(f'imports: {path} is not a Python file (looked up from {Path.cwd()})')
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # None only for suffixes without a loader
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # the file can raise anything, and may be a script that exits
            del sys.modules[name]
            own = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.resolve()]
            where = f' (line {own[-1]})' if own else ''
            raise DBLRError(f'imports: {path} fails: {type(error).__name__}: {error}{where}') from error
