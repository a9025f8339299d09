"""Runs networks with OpenVINO, unchanged in float types, or in int8 with weights and activations quantised by NNCF.

In an int8 network, the last convolution and the sum with the blurry frame stay float32, so that a frame to which the
network adds nothing is returned bit for bit. So do the first two layers, which takes no measurable time and brings the
result 4 to 12 dB closer to float32 (docs/speed.md).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.acceleration import fold
from dblr_plugin.console import quiet
from dblr_plugin.errors import first_line
from dblr_plugin.processor import cpu_flags

__all__ = [
    'LEAST_DECIBELS', 'WINDOWS', 'Int8Forward', 'OpenVINOForward', 'check_result', 'converted', 'cut_crops',
    'int8_is_fast', 'nncf_installed', 'openvino_devices', 'openvino_installed', 'probe_windows', 'quantise',
    'to_openvino',
]  # fmt: skip

_log = logging.getLogger(__name__)

# largest accepted error of OpenVINO's model, relative to the result's amplitude: float32 gives 1e-6 on CPUs, and a
# quarter of an 8-bit step is more; bf16 gives 0.016 on random weights
_EXACT, _ROUNDED = 0.001, 0.05
_PROBE_SIZES = ((64, 64), (64, 96))


def openvino_installed() -> bool:
    """Whether OpenVINO can be imported."""
    return importlib.util.find_spec('openvino') is not None


def openvino_devices() -> list[str]:
    """Returns OpenVINO's devices on this machine: ``CPU``, and Intel's ``GPU`` (``GPU.0``, ``GPU.1``) and ``NPU``."""
    return list(_openvino_core().available_devices)


class OpenVINOForward:
    """Runs a network as a compiled OpenVINO model, cached for the last window size only.

    The number of frames is a constant of a converted network, as tracing unrolls recurrent ones; it is converted again
    for each other number, such as that of a shot's last frames.

    Args:
        net: ``(1, t, c, h, w)``, or one frame ``(1, c, h, w)``, to ``(1, c, h, w)``; it is not changed. If it restores
            all frames, to ``(1, t, c, h, w)``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        models: Networks that are converted already, by the shape of windows without height and width; not verified.
        device: One of :func:`openvino_devices`.

    Raises, at its first call:
        RuntimeError: If the converted network computes something else.
    """

    def __init__(
        self, net: nn.Module, precision: str, models: Mapping[Any, Any] | None = None, device: str = 'CPU'
    ) -> None:
        self.net = fold(net).cpu()
        self.precision = precision
        self.models = dict(models or {})
        self.device = device
        self.shape: torch.Size | None = None
        self.compiled: Any = None
        self.lock = threading.Lock()  # a compiled model has one buffer for inputs, and one for results

    def __call__(self, window: Tensor) -> Tensor:
        """Runs the model on a window; the result is on the CPU."""
        with self.lock:
            if window.shape != self.shape:
                self._compile(window.shape)
            return torch.from_numpy(self.compiled(np.ascontiguousarray(window))[0])

    def _compile(self, shape: torch.Size) -> None:
        self.compiled = self.shape = None  # frees its memory before the next model allocates
        if shape[:-2] not in self.models:
            self.models[shape[:-2]] = converted(self.net, shape[:-2], self.precision, self.device)
        model = self.models[shape[:-2]]
        model.reshape(list(shape))
        options = {
            'INFERENCE_PRECISION_HINT': {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16'}[self.precision],
            'PERFORMANCE_HINT': 'LATENCY',
            **({'INFERENCE_NUM_THREADS': torch.get_num_threads()} if self.device == 'CPU' else {}),
        }
        self.compiled = _openvino_core().compile_model(model, self.device, options)
        self.shape = shape


def _import_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry, which would report each use to Intel and write to the home folder."""
    # None blocks the import; the type stub allows only modules
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    return importlib.import_module('openvino')


@functools.cache
def _openvino_core() -> Any:
    """Returns one core for the whole process, as freeing a model after its core can crash."""
    return _import_openvino().Core()


def to_openvino(net: nn.Module, example: Tensor) -> Any:
    """Converts like ``openvino.convert_model``, in a fifth of the time: the trace is left to the caller to check."""
    _import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(action='ignore'):  # tracing warns about every assert
        traced = torch.jit.trace(net, example, check_trace=False)
    frontend = FrontEndManager().load_by_framework('pytorch')
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # named to keep it alive
    return frontend.convert(frontend.load(decoder))


@torch.no_grad()
def converted(net: nn.Module, shape: tuple[int, ...], precision: str = 'fp32', device: str = 'CPU') -> Any:
    """Converts a network on the CPU with a small window, and verifies it with one of another size.

    Args:
        net: The network.
        shape: That of its input, without height and width.
        precision, device: How it will be run.

    Raises:
        RuntimeError: If the converted network computes something else.
    """
    first, second = probe_windows(shape)
    model = to_openvino(net, first)
    expected = net(second.clone())  # third-party networks may change their input
    # a size that has become a constant may change the result by little, so float32 is always compared too
    for run in dict.fromkeys([('fp32', 'CPU'), (precision, device)]):
        restored = OpenVINOForward(net, run[0], {shape: model}, run[1])(second)
        check_result(restored, expected, _EXACT if run == ('fp32', 'CPU') else _ROUNDED)
    return model


def probe_windows(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns two windows of different sizes: one to convert a network with, one to verify it with."""
    first, second = (torch.linspace(0, 1, h * w).reshape(h, w).repeat(*shape, 1, 1) for h, w in _PROBE_SIZES)
    return first, second


def check_result(restored: Tensor, expected: Tensor, tolerance: float = _EXACT) -> None:
    """Raises RuntimeError if a converted network's result differs by more than a share of its amplitude."""
    share = ((restored - expected).square().mean() / expected.square().mean().clamp(min=1e-12)).sqrt().item()
    if not share < tolerance:
        raise RuntimeError(f'its result differs by {share:.1%}')


# ---------------------------------------------------------------------- int8

#: Number of windows to calibrate on; activation ranges vary little between windows.
WINDOWS = 6
#: Minimum PSNR of int8's result against float32's, peak 1, for ``auto`` to choose int8.
LEAST_DECIBELS = 48.0

_CROPS = 2  # per window
# The first window and how many windows later the next ones are compared with float32. This takes as long as five small
# windows (320x176), so that one in 32 would cost a sixth of their time.
_FIRST_CHECK, _CHECK_EVERY = 32, 256
_SIDE = 128  # pixels; statistics of whole frames would take minutes
_CONVOLUTIONS = ('Convolution', 'GroupConvolution')


def nncf_installed() -> bool:
    """Whether NNCF, needed for quantisation, can be imported."""
    return importlib.util.find_spec('nncf') is not None


def int8_is_fast() -> bool:
    """Whether the processor is much faster in int8 than in float32: VNNI or AMX."""
    return not cpu_flags().isdisjoint({'avx512_vnni', 'avx_vnni', 'amx_int8'})


class Int8Forward:
    """Runs a network in int8 once it is calibrated, by default on its first window.

    Falls back to another forward if quantisation fails, or if the result is too far from float32's and int8 was not
    requested explicitly. A warning says when later windows are too far from float32, as they exceed the ranges of those
    it was calibrated on: bright ones after dark ones.

    Args:
        net: ``(1, t, c, h, w)`` to ``(1, c, h, w)``; it is not changed.
        otherwise: The fallback.
        other_name: The fallback's precision, for the log.
        insists: Whether int8 was requested explicitly, and is used however much its result differs.
    """

    def __init__(self, net: nn.Module, otherwise: Callable[[Tensor], Tensor], other_name: str, insists: bool) -> None:
        self.net = fold(net).cpu()
        self.otherwise = otherwise
        self.other_name = other_name
        self.insists = insists
        self.forward: Callable[[Tensor], Tensor] | None = None
        self.probe: OpenVINOForward | None = None  # int8 for crops of the size it was calibrated on, while near float32
        self.count = 0  # of windows since the calibration

    @property
    def calibrated(self) -> bool:
        """Whether int8 or the fallback has been chosen."""
        return self.forward is not None

    def __call__(self, window: Tensor) -> Tensor:
        """Runs int8 or the fallback on a window; the result is on the CPU."""
        if self.forward is None:
            self.calibrate([window])
        assert self.forward is not None  # set by calibrate
        self.count += 1
        if self.count % _CHECK_EVERY == _FIRST_CHECK:
            self._check(window)
        return self.forward(window)

    def calibrate(self, windows: Iterable[Tensor]) -> None:
        """Quantises with these windows, ``(1, t, c, h, w)``, chooses int8 or the fallback, and logs why."""
        crops = list(cut_crops(windows))
        self.probe, self.count = None, 0
        self.forward = self.otherwise if crops else None
        if not crops:  # an empty input; the next one is calibrated for itself
            return
        try:
            shape = crops[0].shape[:-2]
            models = {shape: quantise(converted(self.net, shape), crops)}
            probe = OpenVINOForward(self.net, 'fp32', models)
            decibels = self._decibels(probe, crops)
        except Exception as error:
            _log.warning('Precision %s: int8 cannot run this network (%s).', self.other_name, first_line(error))
            return
        near = decibels >= LEAST_DECIBELS
        is_used = near or self.insists
        if is_used:
            # windows of other numbers of frames, such as a stream's only shot, are restored in float32
            self.forward = OpenVINOForward(self.net, 'fp32', models)
        self.probe = probe if near else None
        _log.log(
            logging.INFO if near else logging.WARNING,
            f'Precision {"int8" if is_used else self.other_name}: int8 is {decibels:.1f} dB from '
            f'fp32 on {len(crops)} crops of what is to be restored (auto asks for {LEAST_DECIBELS:.0f}).',
        )

    def _check(self, window: Tensor) -> None:
        """Warns once if int8 is too far from float32 on this window."""
        probe, crops = self.probe, list(cut_crops([window]))
        if probe is None or crops[0].shape != probe.shape:
            return
        decibels = self._decibels(probe, crops)
        if decibels < LEAST_DECIBELS:
            self.probe = None
            _log.warning(
                f'Precision int8: it is only {decibels:.1f} dB from fp32 here, as these frames are unlike those it was '
                f'calibrated on; use precision {self.other_name}, or calibrate on frames of all that is to be restored '
                '(VideoRestorer.calibrate).'
            )

    @torch.no_grad()
    def _decibels(self, quantised: OpenVINOForward, crops: list[Tensor]) -> float:
        """Returns the PSNR of int8's results against float32's, peak 1."""
        errors = [(quantised(crop) - self.net(crop)).double().square().mean() for crop in crops]
        return -10 * torch.stack(errors).mean().clamp(min=1e-20).log10().item()


def cut_crops(windows: Iterable[Tensor]) -> Iterator[Tensor]:
    """Cuts crops of one size out of windows ``(1, t, c, h, w)``, at positions spread over the frames.

    Windows too small for this size, which depends on the first one, or of another number of frames are skipped.
    """
    side, frames = None, None
    for number, window in enumerate(windows):
        h, w = window.shape[-2:]
        side = side or tuple(min(_SIDE, length) for length in (h, w))
        frames = frames or window.shape[:-2]
        if h < side[0] or w < side[1] or window.shape[:-2] != frames:
            continue
        for place in range(number * _CROPS, (number + 1) * _CROPS):
            # multiples of the golden ratio and its square cover a frame evenly
            y, x = (
                int(place * step % 1 * (length - s) // 32 * 32)
                for step, length, s in zip((0.618, 0.382 * 2), (h, w), side, strict=True)
            )
            yield window[..., y : y + side[0], x : x + side[1]].contiguous()


def quantise(model: Any, crops: list[Tensor]) -> object:
    """Returns an OpenVINO model with int8 weights and activations, except in its first and output layers.

    Args:
        model: The OpenVINO model; it is changed.
        crops: ``(1, t, c, h, w)``, all of one size, to estimate activation ranges from.
    """
    with quiet():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        model.reshape(list(crops[0].shape))
        return nncf.quantize(
            model,
            nncf.Dataset([crop.numpy() for crop in crops]),
            subset_size=len(crops),
            ignored_scope=nncf.IgnoredScope(names=_names_of_first(model) + _names_of_output(model)),
            advanced_parameters=AdvancedQuantizationParameters(
                # 7-bit weights, as sums of 8-bit ones overflow on processors without VNNI
                overflow_fix=OverflowFix.ENABLE,
                # averaging over the crops, NNCF's default, would clip strong activations in a few of them, at blur
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )


def _names_of_first(model: Any) -> list[str]:
    """Returns the first two convolutions: our 3D layers, which detect blur from differences too small for 8 bits."""
    ordered = model.get_ordered_ops()
    return [node.get_friendly_name() for node in ordered if node.get_type_name() in _CONVOLUTIONS][:2]


def _names_of_output(model: Any) -> list[str]:
    """Returns the operations from the output back to the last convolutions."""
    names, waiting = [], [result.input_value(0).get_node() for result in model.get_results()]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if node.get_type_name() in ('Add', 'Subtract', 'Multiply', *_CONVOLUTIONS):
            names.append(name)
        if 'Convolution' not in node.get_type_name():
            waiting += [value.get_node() for value in node.input_values()]
    return names
