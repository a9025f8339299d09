"""Measures the receptive radius of a network, to check the ``receptive_radius`` of its class."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ['measured_radius']

_LENGTHS = (128, 256, 512)  # lengths in pixels of the strips on which a radius is measured


def measured_radius(net: nn.Module, num_in_ch: int, num_frame: int, multiple: int = 16) -> int:
    """Measures on how many pixels beyond an aligned block of ``multiple`` pixels the block's result depends.

    A copy of the network gets positive weights and inputs, so that nothing cancels and no ReLU is closed (ReLU layers
    are removed, for networks that shift their input). It is differentiated in float64: the result depends on the input
    pixels whose derivative is not zero. Max pooling would hide some.

    Args:
        net: ``(b, t, c, h, w)`` to ``(b, c, h, w)``; it is not changed.
        num_in_ch: c.
        num_frame: t.
        multiple: Frame sides must be multiples of it, and tiles begin at multiples of it; 1 is measured faster than 16.

    Returns:
        The radius in pixels.
    """
    averaging = _averaging_copy(net)
    rows, columns = (_reach(averaging, (1, num_frame, num_in_ch), multiple, axis) for axis in (-2, -1))
    assert rows is not None and columns is not None, 'it looks farther than 255 pixels'
    return max(rows, columns)


def _averaging_copy(net: nn.Module) -> nn.Module:
    averaging = copy.deepcopy(net).cpu().double().eval().requires_grad_(False)
    for module in averaging.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
        for name, layer in module.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(module, name, nn.Identity())
    for name, parameter in averaging.named_parameters():
        parameter.fill_(0 if name.endswith('bias') else 1 / parameter.shape[1:].numel())
    return averaging


@torch.enable_grad()
def _reach(averaging: nn.Module, shape: tuple[int, ...], multiple: int, axis: int) -> int | None:
    """Returns the radius along an axis; None if it exceeds the longest strip."""
    for length in _LENGTHS:
        size = [multiple, multiple]
        size[axis] = -(-length // multiple) * multiple
        # small, so that nothing saturates
        window = torch.full((*shape, *size), 1e-6, dtype=torch.float64, requires_grad=True)
        first = -(-length // 2 // multiple) * multiple
        averaging(window).narrow(axis, first, multiple).sum().backward()
        assert window.grad is not None
        seen = window.grad.transpose(axis, -1).flatten(0, -2).any(0).nonzero()
        low, high = int(seen.min()), int(seen.max())
        if low > 0 and high < size[axis] - 1:
            return max(first - low, high - (first + multiple - 1), 0)
    return None
