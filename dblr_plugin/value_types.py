"""Checks whether a value from YAML matches a type annotation, and describes what would."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from basicsr.utils.registry import ARCH_REGISTRY, Registry
from torch import Tensor, nn

from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.yaml_file import parse

__all__ = [
    'NATURAL', 'NETWORK', 'Arguments', 'ComponentKind', 'Constraint', 'fault', 'fits', 'registered', 'shown', 'whole',
]  # fmt: skip


@dataclass(frozen=True)
class Constraint:
    """A requirement beyond a value's type: ``Annotated[int, Constraint('from 1', lambda v: v >= 1)]``."""

    text: str  # follows the name of the type in messages
    holds: Callable[[Any], bool]


def fault(value: object, annotation: object) -> str | None:
    """Returns what is wrong with a value, and the fix; None if the value is valid.

    >>> fault('1e-4', float)
    "is the text '1e-4', and must be a number; remove the quotes"
    """
    if fits(value, annotation):
        return None
    return f'is {shown(value)}, and must be {_wanted(annotation)}{_cure(value, annotation)}'


def fits(value: object, annotation: object) -> bool:
    """Returns whether a value matches a type. Integers count as floats, bools not as numbers, lists as tuples.

    Annotations other than YAML's types accept any value.
    """
    kind, parts = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return fits(value, parts[0]) and all(m.holds(value) for m in parts[1:] if isinstance(m, Constraint))
    if kind in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if kind in (None, types.NoneType):
        return value is None
    if kind in (bool, int, str):
        return type(value) is kind
    if kind is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    if kind is Tensor:
        return False  # torch.optim also accepts tensors as learning rates, which YAML does not have
    if kind is tuple and parts and parts[-1] is not ...:
        return isinstance(value, list) and len(value) == len(parts) and all(map(fits, value, parts))
    if kind in (list, tuple, Sequence, Iterable):
        return isinstance(value, list) and all(fits(entry, part) for part in parts[:1] for entry in value)
    if kind in (dict, Mapping) or is_typeddict(kind):
        return isinstance(value, dict) and all(fits(entry, part) for part in parts[1:] for entry in value.values())
    return True


def whole(value: object) -> object:
    """Converts whole-number floats, also in lists, to int: BasicSR's files write ``!!float 5e3`` for a count."""
    if isinstance(value, list):
        return [whole(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(value: object) -> str:
    """Formats a value for messages, in YAML terms."""
    if isinstance(value, str):
        return f"the text '{value}'"
    if value is None or isinstance(value, bool):
        return {None: 'empty', True: 'true', False: 'false'}[value]
    return str(value)


def _wanted(annotation: object, plural: bool = False) -> str:
    """Describes a type in words; in the plural for entries of a list."""
    kind, parts = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return ' '.join([_wanted(parts[0], plural), *(m.text for m in parts[1:] if isinstance(m, Constraint))])
    if kind in (Union, types.UnionType):
        return ' or '.join(_wanted(part, plural) for part in parts if part is not Tensor)
    if kind is Literal:
        return ('one of ' if len(parts) > 1 else '') + ', '.join(map(str, parts))
    if kind in (None, types.NoneType):
        return 'empty'
    if kind is bool:
        return 'true or false'
    if kind is str:
        return 'texts' if plural else 'text'
    if kind in (int, float):
        return {int: 'whole number', float: 'number'}[kind].join(('', 's') if plural else ('a ', ''))
    if kind is tuple and parts and parts[-1] is not ...:
        return f'a list of {len(parts)} {_wanted(parts[0], plural=True)}'
    if kind in (list, tuple, Sequence, Iterable):
        return f'a list of {_wanted(parts[0], plural=True)}' if parts else 'a list'
    return 'keys and values'


def _cure(value: object, annotation: object) -> str:
    """Returns how to write what was probably meant, or an empty string."""
    if isinstance(value, str):
        if fits(_unquoted(value), annotation):
            return '; remove the quotes'
        return nearest(value, [word for word in _words(annotation) if isinstance(word, str)])
    if fits([value], annotation):
        return f'; write [{value}]'
    if not isinstance(value, (list, dict, types.NoneType)) and fits(str(value), annotation):
        return '; put it in quotes'
    return ''


def _unquoted(text: str) -> object:
    try:
        return parse(text, text).plain()
    except DBLRError:
        return text


def _words(annotation: object) -> Iterable[object]:
    """Returns the values listed in an annotation's Literals."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return [word for part in get_args(annotation) for word in _words(part)]


NATURAL = Annotated[int, Constraint('from 0', lambda v: v >= 0)]
_NotNegative = Annotated[float, Constraint('from 0', lambda v: v >= 0)]

#: Types for arguments of BasicSR's and torch's classes that have incomplete signatures.
_KNOWN: dict[str, Any] = {
    'lr': _NotNegative,
    'milestones': list[NATURAL],
    'periods': list[Annotated[int, Constraint('from 1', lambda v: v >= 1)]],
    'restarts': list[NATURAL],
    'restart_weights': list[float],
    'reduction': Literal['mean', 'sum'],  # a loss must be a scalar
    'criterion': Literal['l1', 'fro'],  # BasicSR's l2 is torch.nn.L2loss, which does not exist
    'gan_type': Literal['vanilla', 'lsgan', 'wgan', 'wgan_softplus', 'hinge'],
    'layer_weights': dict[str, float],
}


@dataclass(frozen=True)
class Arguments:
    """The arguments allowed beside a ``type``."""

    annotations: dict[str, Any]  # argument -> type; Any if unknown
    required: set[str]
    others: bool  # whether the class accepts any others


@dataclass(frozen=True, eq=False)  # compared by identity, so that it can mark annotations
class ComponentKind:
    """A kind of class that option files name."""

    # name -> class or function; called when needed, as registries fill while modules are imported
    classes: Callable[[], Mapping[str, Callable]]
    given: frozenset[str] = frozenset()  # arguments supplied by the trainer, which option files cannot set
    needed: frozenset[str] = frozenset()  # arguments that the trainer requires although they have a default
    extra: Mapping[str, Any] = field(default_factory=dict)  # keys for the trainer -> their types
    closed: bool = False  # whether **kwargs are ignored, so that there are no other arguments

    def arguments(self, cls: Callable) -> Arguments:
        """Returns the arguments of one of the classes."""
        parameters = inspect.signature(cls).parameters.values()
        own = [p for p in parameters if p.name not in self.given and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        hints = _hints(cls)
        annotations = {p.name: _annotation(cls, p, hints) for p in own}
        required = {p.name for p in own if p.default is p.empty}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        # a loss or network without a constructor has that of nn.Module, which takes anything and then refuses it
        open_ended = open_ended and getattr(cls, '__init__', None) is not nn.Module.__init__
        return Arguments(annotations | dict(self.extra), required | self.needed, open_ended and not self.closed)


def registered(registry: Registry) -> dict[str, Callable]:
    """Returns the classes of one of BasicSR's registries, by name."""
    return dict(iter(registry))


def _hints(cls: Callable) -> dict[str, Any]:
    """Returns the annotations of a class's constructor or of a function; empty if they cannot be resolved."""
    try:
        return get_type_hints(cls.__init__ if inspect.isclass(cls) else cls, include_extras=True)
    except (NameError, TypeError, AttributeError):  # names imported for type checkers only
        return {}


def _annotation(cls: Callable, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """Returns the type of an argument: from the known types, else its annotation, else inferred from its default."""
    if parameter.name in _KNOWN and cls.__module__.startswith(('basicsr.', 'torch.')):
        return _KNOWN[parameter.name]
    if parameter.name in hints:
        return hints[parameter.name]
    default = parameter.default
    if isinstance(default, (bool, str)):
        return type(default)
    if isinstance(default, (int, float)):
        return float
    if isinstance(default, (tuple, list)):
        return list
    return dict if isinstance(default, dict) else Any


NETWORK = ComponentKind(lambda: registered(ARCH_REGISTRY))
