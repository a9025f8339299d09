"""Multiply-adds of networks, counted in the same way for all methods.

mmengine's analysis traces the network and counts; what it calls flops are multiply-adds (MACs), each of them two
floating-point operations. It counts

- convolutions, including transposed and deformable ones, and matrix products: one for each weight at each position, on
  padding as well as pixels; biases are not counted;
- bilinear sampling (deformable convolution, grid_sample, interpolate): four per sampled value, bicubic sixteen;
- two-dimensional Fourier transforms: half of the 5 n log2(n) operations that FFTW counts for n complex values, and half
  of that for rfft2 and irfft2.

Elementwise arithmetic, activations, pooling and normalisation are not counted, as in published tables: inference folds
BatchNorm into the convolutions, and the others take a few operations per value. An unknown operation is an error, so
that no work is silently omitted.

A :class:`TimeStackedConv` counts as the ``nn.Conv3d`` it computes: the zeros in its 2D weights belong to this
implementation, not to the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dblr_plugin.acceleration import plain_copy
from dblr_plugin.archs.dblrnet_arch import TimeStackedConv
from dblr_plugin.errors import DBLRError

__all__ = ['multiply_adds']

# what mmengine calls for an operation, with its traced inputs and outputs (torch._C.Value)
_Handle = Callable[[list[Any], list[Any]], int]


def multiply_adds(net: nn.Module, window_shape: tuple[int, ...]) -> dict[str, int]:
    """Counts by running a copy of the network once on its device, which takes the time and memory of one frame.

    If the frame's sides are multiples of all strides, the count per pixel is constant, except for Fourier transforms.

    Args:
        net: The network as trained, not folded; it is not modified.
        window_shape: Shape of its input, ``(1, t, c, h, w)``.

    Returns:
        Multiply-adds for one window by operator: ``conv``, ``deform_conv2d``, ``matmul`` and so on.

    Raises:
        DBLRError: mmengine is not installed, or no rule counts an operation of the network.
    """
    try:
        from mmengine.analysis import FlopAnalyzer
    except ImportError as error:
        raise DBLRError("counting operations needs mmengine: pip install 'dblr_plugin[benchmark]'") from error
    counted = plain_copy(net)
    for module in counted.modules():
        if isinstance(module, TimeStackedConv):
            module.__class__ = nn.Conv3d  # type: ignore[assignment]  # its base class, with the same layout
    window = torch.zeros(window_shape, device=next((p.device for p in net.parameters()), None))
    analysis = FlopAnalyzer(counted, window).set_op_handle(**_RULES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    with torch.no_grad():
        operators = {name: int(count) for name, count in analysis.by_operator().items() if count}
    unknown = sorted(analysis.unsupported_ops())
    if unknown:
        raise DBLRError(
            f'{type(net).__name__}: no rule counts the operations of {", ".join(unknown)}; add one to {__name__}'
        )
    return operators


def _sizes(value: Any) -> list[int]:
    return value.type().sizes()


def _nothing(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _sampling(macs: int) -> _Handle:
    """Counts ``macs`` per sampled value."""
    return lambda inputs, outputs: macs * math.prod(_sizes(outputs[0]))


def _deformable(inputs: list[Any], outputs: list[Any]) -> int:
    """Counts torchvision's deformable convolution: the convolution plus bilinear sampling of all values it covers."""
    channels, *window = _sizes(inputs[0])[1:2] + _sizes(inputs[1])[2:]
    batch, _, *places = _sizes(outputs[0])
    samples = batch * channels * math.prod(window) * math.prod(places)
    return batch * math.prod(_sizes(inputs[1])) * math.prod(places) + 4 * samples


def _fourier(macs: float, real: str) -> _Handle:
    """Counts ``macs`` times n log2(n) over the last two axes, for n values on the real side, or either if none is."""

    def count(inputs: list[Any], outputs: list[Any]) -> int:
        sizes = _sizes((inputs if real == 'input' else outputs)[0])
        return round(macs * math.prod(sizes) * math.log2(math.prod(sizes[-2:])))

    return count


# each also in its in-place variant, with a trailing _
_ELEMENTWISE = (
    'abs', 'add', 'angle', 'complex', 'conj', 'cos', 'div', 'elu', 'exp', 'gelu', 'hardtanh', 'leaky_relu', 'log',
    'maximum', 'minimum', 'mul', 'neg', 'pow', 'prelu', 'reciprocal', 'rsqrt', 'rsub', 'sigmoid', 'silu', 'sin',
    'softmax', 'softplus', 'sqrt', 'square', 'sub', 'tanh', 'where',
    # pooling, and sums over axes
    'adaptive_avg_pool2d', 'adaptive_max_pool2d', 'amax', 'amin', 'avg_pool2d', 'max_pool2d', 'mean', 'min', 'sum',
    # normalisation
    'batch_norm', 'group_norm', 'instance_norm', 'layer_norm',
    # moving and comparing values
    'clone', 'col2im', 'expand_as', 'fft_fftfreq', 'fft_fftshift', 'fft_ifftshift', 'fft_rfftfreq', 'im2col', 'imag',
    'index_select', 'le', 'linspace', 'lt', 'ne', 'ones_like', 'pad', 'pixel_shuffle', 'pixel_unshuffle', 'real',
    'reflection_pad2d', 'repeat', 'repeat_interleave', 'replication_pad2d', 'unfold', 'upsample_nearest2d', 'view_as',
)  # fmt: skip
_RULES: dict[str, _Handle] = {
    **{f'aten::{name}{place}': _nothing for name in _ELEMENTWISE for place in ('', '_')},
    'aten::grid_sampler': _sampling(4),
    'aten::upsample_bilinear2d': _sampling(4),
    'aten::upsample_bicubic2d': _sampling(16),
    'aten::fft_fft2': _fourier(2.5, 'input'),
    'aten::fft_ifft2': _fourier(2.5, 'input'),
    'aten::fft_rfft2': _fourier(1.25, 'input'),
    'aten::fft_irfft2': _fourier(1.25, 'output'),
    'torchvision::deform_conv2d': _deformable,
}
