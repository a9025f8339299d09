"""Networks run by OpenVINO."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.restore.folding import fold

__all__ = ['OpenVINOForward', 'import_openvino', 'openvino_devices', 'openvino_installed', 'to_openvino']

# OpenVINO's copy is refused when it differs by more of the result's amplitude: bf16 makes 0.016 on random weights
_TOLERANCE = 0.05
_PROBE_SIZES = ((64, 64), (64, 96))


def openvino_installed() -> bool:
    """Whether OpenVINO can be imported."""
    return importlib.util.find_spec('openvino') is not None


def openvino_devices() -> list[str]:
    """What OpenVINO can run networks on here: ``CPU``, and Intel's ``GPU`` (``GPU.0``, ``GPU.1``) and ``NPU``."""
    return list(_openvino_core().available_devices)


class OpenVINOForward:
    """The network as OpenVINO's compiled model, which is kept for the size of the last window alone.

    Args:
        net: ``(1, t, c, h, w)``, or one frame ``(1, c, h, w)``, to ``(1, c, h, w)``; it is not changed.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        model: The converted network, where there is one already; it is not compared.
        device: One of :func:`openvino_devices`.

    Raises, at its first call:
        RuntimeError: The converted network computes something else.
    """

    def __init__(self, net: nn.Module, precision: str, model: Any = None, device: str = 'CPU') -> None:
        self.net = fold(net).cpu()
        self.hint = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16'}[precision]
        self.model = model
        self.device = device
        self.shape: torch.Size | None = None
        self.compiled: Any = None

    def __call__(self, window: Tensor) -> Tensor:
        """As the network, on the CPU."""
        if self.model is None:
            self._convert(window.shape[:-2])
        if window.shape != self.shape:
            self._compile(window.shape)
        return torch.from_numpy(self.compiled(np.ascontiguousarray(window))[0])

    @torch.no_grad()
    def _convert(self, shape: tuple[int, ...]) -> None:
        """Converts with one small window and compares with another one: sizes must not have become constants."""
        first, second = (torch.linspace(0, 1, h * w).reshape(h, w).repeat(*shape, 1, 1) for h, w in _PROBE_SIZES)
        self.model = to_openvino(self.net, first)
        expected = self.net(second)
        self._compile(second.shape)
        difference = torch.from_numpy(self.compiled(second.numpy())[0]) - expected
        share = (difference.square().mean() / expected.square().mean().clamp(min=1e-12)).sqrt().item()
        if not share < _TOLERANCE:
            raise RuntimeError(f'its result differs by {share:.0%}')

    def _compile(self, shape: torch.Size) -> None:
        self.compiled = self.shape = None  # its memory is free before the next one takes its own
        self.model.reshape(list(shape))
        options = {
            'INFERENCE_PRECISION_HINT': self.hint,
            'PERFORMANCE_HINT': 'LATENCY',
            **({'INFERENCE_NUM_THREADS': torch.get_num_threads()} if self.device == 'CPU' else {}),
        }
        self.compiled = _openvino_core().compile_model(self.model, self.device, options)
        self.shape = shape


def import_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry, which would report each use to its makers and write into the home."""
    # None refuses the import; the stub knows modules alone
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    return importlib.import_module('openvino')


@functools.cache
def _openvino_core() -> Any:
    """One for the whole process: freeing models whose cores have gone can crash it."""
    return import_openvino().Core()


def to_openvino(net: nn.Module, example: Tensor) -> Any:
    """Converts as ``openvino.convert_model`` does, in a fifth of the time: the trace is not checked, see the caller."""
    import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(action='ignore'):  # what tracing says of every assert
        traced = torch.jit.trace(net, example, check_trace=False)
    frontend = FrontEndManager().load_by_framework('pytorch')
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # a name keeps it alive
    return frontend.convert(frontend.load(decoder))
