"""Option files whose values know their file and line, for error messages.

YAML as BasicSR reads it, anchors and merge keys included, but numbers as in YAML 1.2: ``1e-4`` needs no ``!!float``.
A file with ``base: other.yml`` says only in what it differs from that one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dblr_plugin.errors import DBLRError

__all__ = ['Located', 'import_files', 'model_type', 'parse', 'read_option_file', 'with_base']

_MERGE = 'tag:yaml.org,2002:merge'


@dataclass
class Located:
    """A value and where it stands.

    Attributes:
        value: Key -> :class:`Located` for a mapping, else the plain value; lists are plain throughout.
        where: ``file:line``, or the command line's option.
    """

    value: Any
    where: str

    def entries(self, trail: str) -> dict[str, Located]:
        """The keys and values of a mapping; nothing counts as an empty one. Raises DBLRError for anything else."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            self.fail(f'{trail or "the file"} must hold keys and values')
        return self.value

    def at(self, trail: str) -> Located:
        """What stands at ``a.b.c``, or the innermost section on the way there that exists."""
        here = self
        for key in trail.split('.'):
            if not isinstance(here.value, dict) or key not in here.value:
                break
            here = here.value[key]
        return here

    def plain(self) -> Any:
        """The value without places, as BasicSR takes it; changing it changes nothing here."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        return list(self.value) if isinstance(self.value, list) else self.value

    def fail(self, message: str) -> NoReturn:
        """Raises DBLRError with the place in front of the message."""
        raise DBLRError(f'{self.where}: {message}')


class _Loader(yaml.SafeLoader):
    """YAML 1.1 but for numbers with an exponent, which needed a point before it and a sign in it."""


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$'),
    list('-+.0123456789'),
)


def parse(text: str, name: str, lines: bool = True) -> Located:
    """Parses YAML.

    Args:
        text: One document.
        name: What messages call it: a path, or an option of the command line.
        lines: Whether messages name lines too.

    Raises:
        DBLRError: It is not YAML, or a key stands twice in a section.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Located(None, name) if root is None else _Reader(loader, name, lines).located(root, root, '')
    except RecursionError as error:
        raise DBLRError(f'{name}: not an option file: its brackets or sections are nested too deep') from error
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        where = f'{name}:{mark.line + 1}' if lines and mark else name
        raise DBLRError(f'{where}: not valid YAML: {getattr(error, "problem", None) or error}') from error


def read_option_file(path: str | Path) -> Located:
    """Reads an option file and what it is based on, without checking what they say.

    Raises:
        DBLRError: One cannot be read, is not YAML, or is based on itself.
    """
    return with_base(parse(_text(Path(path)), str(path)), Path(path))


def with_base(root: Located, path: Path, derived: tuple[Path, ...] = ()) -> Located:
    """Puts a file's values over those of the file that its ``base`` names, section by section.

    A section of another ``type`` replaces the base's as a whole.

    Args:
        root: The file's values.
        path: The file, in whose folder relative paths start.
        derived: The files that are based on this one.

    Raises:
        DBLRError: The base cannot be read, is not YAML, or is based on this file in turn.
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


def model_type(path: str | Path) -> str | None:
    """The ``model_type`` of an option file or of its base, whatever else is there; None if there is none."""
    seen: set[Path] = set()
    here = Path(path)
    while here.resolve() not in seen:
        seen.add(here.resolve())
        words = _words(_text(here))
        found, base = words.get('model_type'), words.get('base')
        if found is not None or base is None or not (here.parent / base).is_file():
            return found
        here = here.parent / base
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except FileNotFoundError as error:
        raise DBLRError(f'{path}: no such option file (looked up from {Path.cwd()})') from error
    except (OSError, UnicodeDecodeError) as error:
        raise DBLRError(f'{path}: cannot be read as text ({error})') from error


def _words(text: str) -> dict[str, str]:
    """Key -> word of a document's top level, whatever else is there; of a key that stands twice, the first."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        return {}
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    scalar = yaml.ScalarNode
    return {k.value: v.value for k, v in reversed(pairs) if isinstance(k, scalar) and isinstance(v, scalar)}


class _Reader:
    """Turns YAML's nodes into values with places."""

    def __init__(self, loader: _Loader, name: str, lines: bool) -> None:
        self.loader, self.name, self.lines = loader, name, lines
        self.open: list[yaml.Node] = []  # the mappings around the present one

    def located(self, node: yaml.Node, key: yaml.Node, trail: str) -> Located:
        """A node's value; the place is that of its key."""
        where = self.where(key)
        if not isinstance(node, yaml.MappingNode):
            try:
                return Located(self.loader.construct_object(node, deep=True), where)
            except ValueError as error:  # a day or a number that cannot be, such as 2024-99-99
                raise DBLRError(f'{where}: {trail} cannot be read ({error}); put it in quotes if it is text') from error
        if any(node is around for around in self.open):
            raise DBLRError(f'{where}: {trail} contains itself; write out what the alias should stand for')
        self.open.append(node)
        # an aliased section becomes one of its own at each place, as BasicSR takes keys out of sections
        value = {
            name: self.located(child, key, f'{trail}.{name}' if trail else str(name))
            for name, (key, child) in self.pairs(node, trail).items()
        }
        self.open.pop()
        return Located(value, where)

    def pairs(self, node: yaml.Node, trail: str) -> dict[Any, tuple[yaml.Node, yaml.Node]]:
        """Key -> nodes of key and value, those of merged sections included; the section's own come last and win."""
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
            name = self.loader.construct_object(key)
            if name in own:
                raise DBLRError(f"{self.where(key)}: '{name}' appears twice in {trail or 'the file'}; remove one")
            own[name] = key, value
        return merged | own

    def where(self, node: yaml.Node) -> str:
        """The place of a node."""
        return f'{self.name}:{node.start_mark.line + 1}' if self.lines else self.name


def import_files(paths: Iterable[str]) -> None:
    """Runs each file once in this process, so that what it registers with BasicSR is there.

    Args:
        paths: Python files, as seen from the working directory.

    Raises:
        DBLRError: A file is missing, or fails.
    """
    for path in map(Path, paths):
        # a name of its own: two files may be called alike, and classes must not be registered twice
        name = f'dblr_imports_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}'
        if name in sys.modules:
            continue
        if path.suffix != '.py' or not path.is_file():
            raise DBLRError(f'imports: {path} is not a Python file (looked up from {Path.cwd()})')
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # None is for suffixes that nothing loads
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the file does
            del sys.modules[name]
            raise DBLRError(f'imports: {path} fails: {type(error).__name__}: {error}') from error
