"""The scope ``dblr`` in MMEngine's registries.

It holds all networks and losses that BasicSR knows, ours among them. What is ours can also be named without the scope
in any config; BasicSR's names, such as ``MSELoss``, without it mean BasicSR's classes inside our models alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY
from mmengine import registry as root
from mmengine.registry import Registry

from dblr_plugin.errors import DBLRError, nearest

__all__ = [
    'DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'LOOPS', 'METRICS', 'MODELS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'build_part',
    'plain', 'register',
]  # fmt: skip

SCOPE = 'dblr'

Registered = TypeVar('Registered', bound=Callable)


def _scoped(parent: Registry) -> Registry:
    return Registry(f'dblr {parent.name}', parent=parent, scope=SCOPE)


MODELS = _scoped(root.MODELS)
DATASETS = _scoped(root.DATASETS)
DATA_SAMPLERS = _scoped(root.DATA_SAMPLERS)
LOOPS = _scoped(root.LOOPS)
HOOKS = _scoped(root.HOOKS)
METRICS = _scoped(root.METRICS)
OPTIM_WRAPPER_CONSTRUCTORS = _scoped(root.OPTIM_WRAPPER_CONSTRUCTORS)


def register(registry: Registry, name: str | None = None) -> Callable[[Registered], Registered]:
    """Registers a class or function in a registry of ours, and for configs without the scope in MMEngine's own."""

    def add(cls: Registered) -> Registered:
        for each in (registry, registry.parent):
            each.register_module(name=name, module=cls)
        return cls

    return add


def _take_over_basicsrs() -> None:
    """Registers what BasicSR's registries hold by now: files that are imported later may add to them."""
    for registry in (ARCH_REGISTRY, LOSS_REGISTRY):
        for name, cls in registry:
            if name not in MODELS.module_dict:
                MODELS.register_module(name=name, module=cls)
                if cls.__module__.startswith('dblr_plugin.'):
                    root.MODELS.register_module(name=name, module=cls)


_take_over_basicsrs()


def build_part(cfg: Mapping[str, Any] | None) -> Any:
    """Builds a network or a loss of a model; names without a scope are looked up in ours first.

    Raises:
        DBLRError: No such class is registered.
    """
    if cfg is None:
        return None
    _take_over_basicsrs()
    arguments = plain(cfg)
    name = arguments.pop('type')
    try:
        cls = MODELS.get(name)
    except RuntimeError:  # what MMEngine says of some names that it does not know, and of others it returns None
        cls = None
    if cls is None:
        raise DBLRError(
            f"no class '{name}' is registered{nearest(name, MODELS.module_dict)} (a file of your own belongs into "
            'custom_imports)'
        )
    return cls(**arguments)


def plain(value: Any) -> Any:
    """A config's content as dicts and lists: what BasicSR's classes expect, and what checkpoints may hold."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
