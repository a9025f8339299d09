"""An optimiser for each network of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from torch import nn

from dblr_plugin.mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, register

__all__ = ['MultiOptimWrapperConstructor']


@register(OPTIM_WRAPPER_CONSTRUCTORS)
class MultiOptimWrapperConstructor:
    """Builds ``optim_wrapper`` of a model of several networks; MMagic has one of the same name and form.

    Args:
        optim_wrapper_cfg: Name of the network in the model -> its ``optim_wrapper``.
        paramwise_cfg: Not used: each network's ``optim_wrapper`` has its own.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: object = None) -> None:
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """One wrapper for each network."""
        bare: Any = model.module if is_model_wrapper(model) else model
        return OptimWrapperDict(
            **{name: build_optim_wrapper(getattr(bare, name), config) for name, config in self.configs.items()}
        )
