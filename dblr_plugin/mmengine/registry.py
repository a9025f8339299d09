"""The scope ``dblr`` in MMEngine's registries.

It contains all networks and losses registered with BasicSR, including ours. Our classes can also be named without the
scope in any config; BasicSR's names without it, such as ``MSELoss``, mean BasicSR's classes only inside our models.
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
    """Registers a class or function in our registry, and in MMEngine's, for configs without the scope."""

    def add(cls: Registered) -> Registered:
        for each in (registry, registry.parent):
            each.register_module(name=name, module=cls)
        return cls

    return add


def _take_over_basicsrs() -> None:
    """Registers the current contents of BasicSR's registries, to which files imported later may add."""
    for registry in (ARCH_REGISTRY, LOSS_REGISTRY):
        for name, cls in registry:
            if name not in MODELS.module_dict:
                MODELS.register_module(name=name, module=cls)
                if cls.__module__.startswith('dblr_plugin.'):
                    root.MODELS.register_module(name=name, module=cls)


_take_over_basicsrs()


def build_part(cfg: Mapping[str, Any] | None) -> Any:
    """Builds a network or a loss of a model; names without a scope are looked up in ``dblr`` first.

    Raises:
        DBLRError: If no such class is registered.
    """
    if cfg is None:
        return None
    _take_over_basicsrs()
    arguments = plain(cfg)
    name = arguments.pop('type')
    try:
        cls = MODELS.get(name)
    except RuntimeError:  # MMEngine raises this for some unknown names and returns None for others
        cls = None
    if cls is None:
        raise DBLRError(
            f"no class '{name}' is registered{nearest(name, MODELS.module_dict)} (list your own file in custom_imports)"
        )
    return cls(**arguments)


def plain(value: Any) -> Any:
    """Converts a config's content to dicts and lists, which BasicSR's classes expect and checkpoints may contain."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
