"""Exports networks to ONNX, verified against PyTorch, and to other checkpoint formats."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from basicsr.archs.arch_util import DCNv2Pack
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from dblr_plugin.acceleration import fold
from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.console import quiet
from dblr_plugin.errors import DBLRError, first_line
from dblr_plugin.files import atomic_write
from dblr_plugin.restore.loading import LoadedNetwork
from dblr_plugin.restore.openvino_forward import LEAST_DECIBELS
from dblr_plugin.version import __version__
from dblr_plugin.weights.checkpoint import FORMAT_VERSION, save_atomically

if TYPE_CHECKING:
    import onnx

__all__ = ['OPSET', 'TOLERANCE', 'Difference', 'export_checkpoint', 'export_onnx']

#: ONNX opset version; deformable convolution needs at least 19. onnxruntime supports it from 1.17 on.
OPSET = 20
#: Maximum difference between ONNX's and PyTorch's pixels in [0, 1]: a fortieth of an 8-bit step.
TOLERANCE = 1e-4

_CHANNELS = {
    1: 'Y of BT.601: (65.481 R + 128.553 G + 24.966 B + 16) / 255 of R, G, B in [0, 1]; '
    'restored RGB is RGB + (restored Y - Y) * 255 / 219',
    3: 'R, G, B in [0, 1]',
}


@dataclass(frozen=True)
class Difference:
    """The difference between ONNX's and PyTorch's results, for frames of one size, in pixels."""

    height: int
    width: int
    largest: float  # between two values in [0, 1]
    psnr: float  # dB

    def __str__(self) -> str:
        return f'{self.height} x {self.width} pixels: at most {self.largest:.1e} from PyTorch, {self.psnr:.1f} dB'


def export_checkpoint(loaded: LoadedNetwork, path: Path) -> None:
    """Writes a ``.safetensors`` or ``.pth`` file that names its network and what it was trained on."""
    content: dict[str, Any] = {'network': loaded.options, 'format_version': FORMAT_VERSION}
    if loaded.trained_on:
        content['trained_on'] = loaded.trained_on
    if loaded.pad_multiple != 1:
        content['pad_multiple'] = loaded.pad_multiple
    save_atomically({'params': loaded.net.state_dict(), **content}, path)


def export_onnx(loaded: LoadedNetwork, path: Path, calibration: Sequence[Tensor] = ()) -> list[Difference]:
    """Writes an ONNX file, after verifying with onnxruntime that it restores like PyTorch.

    The input is ``window``, float32 ``(1, num_frame, channels, height, width)``, any height and width that the network
    accepts. The output is ``restored``, ``(1, channels, height, width)``, not clipped. The metadata describe both.

    Args:
        loaded: The network.
        path: The file.
        calibration: Windows, ``(1, num_frame, channels, h, w)`` of one size, to quantise to int8 with. The first two
            convolutions, which compare the frames, the last one, and the sum with the blurry frame stay float32. Empty
            for float32.

    Returns:
        The comparisons: on these windows, or on two sizes other than that of the export, with odd sides if the network
        accepts them.

    Raises:
        DBLRError: If ONNX cannot represent the network, or computes something else; no file is left.
    """
    traits = NetworkTraits.of(loaded.options)
    shape = (1, traits.num_frame, traits.channels)
    unit = loaded.pad_multiple
    least = math.ceil(32 / unit)
    sizes = [((least + rows) * unit, (least + columns) * unit) for rows, columns in ((2, 3), (0, 2), (5, 1))]
    window, *others = (_window(shape, *size) for size in sizes)
    program = _translate(loaded, window)
    with atomic_write(path) as partial:
        metadata = _metadata(loaded, traits)
        _write(program.model_proto, metadata, partial)
        if calibration:
            _write(_quantised(partial, calibration), metadata | {'precision': 'int8'}, partial)
        differences = [_compare(loaded.net, partial, window) for window in calibration or others]
        listed = '; '.join(map(str, differences))
        if calibration and not all(each.psnr >= LEAST_DECIBELS for each in differences):
            raise DBLRError(
                f'{path}: not written, since the PSNR of int8 against fp32 is below {LEAST_DECIBELS:.0f} dB '
                f'({listed}); leave out --precision int8'
            )
        if not calibration and not all(each.largest <= TOLERANCE for each in differences):
            raise DBLRError(f"{path}: not written, since the exported network's output differs ({listed}); report it")
    return differences


def _window(shape: tuple[int, ...], height: int, width: int) -> Tensor:
    return torch.rand(*shape, height, width, generator=torch.Generator().manual_seed(0))


def _translate(loaded: LoadedNetwork, window: Tensor) -> torch.onnx.ONNXProgram:
    # not named: torch < 2.14 must prove that named sides are free, and cannot for networks that pad frames
    sides: list[Any] = [torch.export.Dim.DYNAMIC] * 2
    if loaded.pad_multiple != 1:
        sides = [loaded.pad_multiple * torch.export.Dim(name, min=1) for name in ('height', 'width')]
    try:
        with quiet():
            program = torch.onnx.export(
                _without_checks(fold(loaded.net)),
                (window,),
                input_names=['window'],
                output_names=['restored'],
                opset_version=OPSET,
                dynamic_shapes=(dict(enumerate(sides, start=3)),),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise DBLRError(
            f'{loaded.weights}: ONNX cannot hold this {type(loaded.net).__name__} ({first_line(cause)}); if its frames '
            'must be multiples of some size, give the option file that has val.pad_multiple'
        ) from cause
    assert program is not None  # None is for the exporter before dynamo
    return program


def _without_checks(net: nn.Module) -> nn.Module:
    """Replaces layers that check values for warnings, which a graph cannot contain."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, DCNv2Pack):
                setattr(module, name, _DeformableConv(child))
    return net


class _DeformableConv(nn.Module):
    """EDVR's deformable convolution."""

    def __init__(self, pack: DCNv2Pack) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: Tensor, feat: Tensor) -> Tensor:
        """``(b, c, h, w)``, and the features for the offsets, of the same shape, to ``(b, out, h, w)``."""
        pack = self.pack
        rows, columns, mask = pack.conv_offset(feat).chunk(3, dim=1)
        offsets = torch.cat((rows, columns), dim=1)
        return deform_conv2d(
            x, offsets, pack.weight, pack.bias, pack.stride, pack.padding, pack.dilation, mask.sigmoid()
        )


def _metadata(loaded: LoadedNetwork, traits: NetworkTraits) -> dict[str, str]:
    return {
        'network': json.dumps(loaded.options),
        'num_frame': str(traits.num_frame),
        'restored_frame': str(traits.restores),
        'channels': _CHANNELS[traits.channels],
        'pad_multiple': str(loaded.pad_multiple),
        **({'flow': 'the other frames are warped to the restored one by optical flow'} if traits.flow else {}),
        **({'trained_on': loaded.trained_on} if loaded.trained_on else {}),
    }


def _write(model: onnx.ModelProto, metadata: dict[str, str], path: Path) -> None:
    import onnx

    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField('metadata_props')  # the exporter's notes, and stack traces from this machine
    _name_sides(graph, int(metadata['pad_multiple']))
    model.producer_name, model.producer_version = 'dblr_plugin', __version__
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _name_sides(graph: onnx.GraphProto, unit: int) -> None:
    """Names the sides of frames, which some versions of torch call s0 and the like, wherever they are stated."""
    *_, height, width = (side.dim_param for side in graph.input[0].type.tensor_type.shape.dim)
    factor = '' if unit == 1 else f'{unit}*'
    names = {height: f'{factor}height', width: f'{factor}width'}
    for part in (*graph.input, *graph.output, *graph.value_info):
        for side in part.type.tensor_type.shape.dim:
            if side.dim_param in names:
                side.dim_param = names[side.dim_param]


def _quantised(path: Path, windows: Sequence[Tensor]) -> onnx.ModelProto:
    """Returns a file's network with int8 convolutions, each between quantise and dequantise operations (QDQ)."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Windows(CalibrationDataReader):
        waiting = ({'window': window.numpy()} for window in windows)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.waiting, None)

    model = onnx.load(path)
    convolutions = [node.name for node in model.graph.node if node.op_type == 'Conv']
    with quiet():
        quantize_static(
            model,
            path,
            Windows(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            nodes_to_exclude=[*convolutions[:2], *convolutions[-1:]],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return onnx.load(path)


@torch.no_grad()
def _compare(net: nn.Module, path: Path, window: Tensor) -> Difference:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    restored = torch.from_numpy(session.run(None, {'window': window.numpy()})[0])
    difference = (restored - net(window)).double()
    mse = difference.square().mean().item()
    psnr = -10 * math.log10(mse) if mse else math.inf
    height, width = window.shape[-2:]
    return Difference(height, width, difference.abs().max().item(), psnr)
