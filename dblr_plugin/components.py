"""Which classes an option file may name by ``type``, and which arguments they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_type_hints

from basicsr.utils.registry import ARCH_REGISTRY, Registry

from dblr_plugin.value_types import Constraint

__all__ = ['NATURAL', 'NETWORK', 'Arguments', 'ComponentKind', 'registered']

NATURAL = Annotated[int, Constraint('from 0', lambda v: v >= 0)]
_NotNegative = Annotated[float, Constraint('from 0', lambda v: v >= 0)]

#: Arguments of BasicSR's and torch's classes whose signatures say less than is true.
_KNOWN: dict[str, Any] = {
    'lr': _NotNegative,
    'milestones': list[NATURAL],
    'periods': list[Annotated[int, Constraint('from 1', lambda v: v >= 1)]],
    'restarts': list[NATURAL],
    'restart_weights': list[float],
    'reduction': Literal['mean', 'sum'],  # a loss must be one number
    'criterion': Literal['l1', 'fro'],  # BasicSR's l2 is torch.nn.L2loss, which does not exist
    'gan_type': Literal['vanilla', 'lsgan', 'wgan', 'wgan_softplus', 'hinge'],
    'layer_weights': dict[str, float],
}


@dataclass(frozen=True)
class Arguments:
    """What may stand beside a ``type``.

    Attributes:
        annotations: Argument -> type; ``Any`` where nothing is known.
        required: Those that must be given.
        others: Whether the class takes any others too.
    """

    annotations: dict[str, Any]
    required: set[str]
    others: bool


@dataclass(frozen=True, eq=False)  # compared by identity, so that it can mark annotations
class ComponentKind:
    """One kind of class that option files name.

    Attributes:
        classes: Returns name -> class or function, when asked: registries fill as modules are imported.
        given: Arguments that the trainer gives, which are not for option files.
        needed: Arguments that the trainer needs although they have a default.
        extra: Keys that are for the trainer -> their types.
        closed: Whether ``**kwargs`` mean nothing.
    """

    classes: Callable[[], Mapping[str, Callable]]
    given: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()
    extra: Mapping[str, Any] = field(default_factory=dict)
    closed: bool = False

    def arguments(self, cls: Callable) -> Arguments:
        """The arguments of one of the classes."""
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(cls).parameters.items()
            if name not in self.given and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        hints = _hints(cls)
        annotations = {name: _annotation(cls, parameter, hints) for name, parameter in parameters.items()}
        required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
        open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
        return Arguments(annotations | dict(self.extra), required | self.needed, open_ended and not self.closed)


def registered(registry: Registry) -> dict[str, Callable]:
    """The classes of one of BasicSR's registries, by name."""
    return dict(iter(registry))


def _hints(cls: Callable) -> dict[str, Any]:
    """The annotations of a class's constructor or of a function, as far as they can be understood."""
    try:
        return get_type_hints(cls.__init__ if inspect.isclass(cls) else cls, include_extras=True)
    except (NameError, TypeError, AttributeError):  # names that are imported for type checkers alone
        return {}


def _annotation(cls: Callable, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """The type of an argument: what is known of it, else its annotation, else what its default lets one think."""
    if parameter.name in _KNOWN and cls.__module__.startswith(('basicsr.', 'torch.')):
        return _KNOWN[parameter.name]
    if parameter.name in hints:
        return hints[parameter.name]
    default = parameter.default
    if isinstance(default, (bool, str)):
        return type(default)
    if isinstance(default, (int, float)):
        return float
    containers: dict[type, Any] = {tuple: list, list: list, dict: dict}
    return containers.get(type(default), Any)


NETWORK = ComponentKind(lambda: registered(ARCH_REGISTRY))
