"""A network made fast for this machine: precision, memory layout, and who runs it.

Everything here computes the same as the network in float32, up to the rounding of the chosen precision; ``torch``
with ``fp32`` is the plain way. What each step brings on a machine, ``scripts/speed/inference.py`` tells.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.acceleration import autocast, prepare_network
from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.restore.folding import fold

__all__ = ['BACKENDS', 'PRECISIONS', 'Forward', 'build_forward', 'choose', 'is_out_of_memory', 'openvino_installed']

Forward = Callable[[Tensor], Tensor]

BACKENDS = ('auto', 'torch', 'compile', 'openvino')
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16')

#: Frames from which on torch.compile is worth its half a minute.
FRAMES_WORTH_COMPILING = 100
# OpenVINO's copy is refused when it differs by more of the result's amplitude: bf16 makes 0.016 on random weights
_TOLERANCE = 0.05
_PROBE_SIZES = ((64, 64), (64, 96))


def build_forward(
    net: nn.Module,
    device: torch.device,
    backend: str = 'auto',
    precision: str = 'auto',
    frames: int = 1,
) -> Forward:
    """Prepares a copy of a network for restoring frames.

    Args:
        net: ``(1, t, c, h, w)`` to ``(1, c, h, w)``; it is not changed.
        device: Where it is to run.
        backend: ``torch``, ``compile`` (torch.compile), ``openvino`` (CPUs), or ``auto``: the fastest there is.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: a shorter one where it is quicker on this device.
        frames: How many are to be restored, for ``auto`` to judge whether compiling pays.

    Returns:
        ``(1, t, c, h, w)`` float32 to ``(1, c, h, w)`` float32, on the device of what it is given. Its first call,
        and the first of each further size, takes longer. Where the backend cannot run the network, it says so and
        goes on with ``torch``.

    Raises:
        DBLRError: An unknown name, or a backend that this machine does not have.
    """
    backend, precision = choose(device, backend, precision, frames)
    plain = _TorchForward(net, device, precision)
    if backend == 'compile':
        return _FallingBack(_compiled(plain), plain, 'torch.compile')
    if backend == 'openvino':
        return _FallingBack(_OpenVINOForward(net, precision), plain, 'OpenVINO')
    return plain


def choose(device: torch.device, backend: str, precision: str, frames: int = 1) -> tuple[str, str]:
    """Replaces ``auto`` by what is best on this device; as :func:`build_forward`."""
    for value, known, name in ((backend, BACKENDS, 'backend'), (precision, PRECISIONS, 'precision')):
        if value not in known:
            raise DBLRError(f"there is no {name} '{value}', only {', '.join(known)}{nearest(value, known)}")
    if backend == 'openvino' and device.type != 'cpu':
        raise DBLRError(f'backend openvino runs on the CPU, not on {device}; use auto')
    if backend == 'openvino' and not openvino_installed():
        raise DBLRError('backend openvino needs: pip install openvino')
    if precision == 'auto':
        precision = _best_precision(device)
    if backend == 'auto':
        backend = _best_backend(device, precision, frames)
    return backend, precision


def openvino_installed() -> bool:
    """Whether OpenVINO can be imported."""
    return importlib.util.find_spec('openvino') is not None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. On CPUs PyTorch has no error of its own for it, nor has OpenVINO (std::bad_alloc)."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(text in str(error) for text in ('DefaultCPUAllocator', 'bad_alloc', 'not enough memory'))


def _best_precision(device: torch.device) -> str:
    if device.type == 'cuda':
        capability = torch.cuda.get_device_capability(device)
        return 'bf16' if capability >= (8, 0) else 'fp16' if capability >= (7, 0) else 'fp32'
    return 'bf16' if device.type == 'cpu' and _bf16_is_quick() else 'fp32'


def _best_backend(device: torch.device, precision: str, frames: int) -> str:
    if device.type == 'cpu' and openvino_installed():
        return 'openvino'
    # measured: on CPUs it brings nothing in fp32
    pays = frames >= FRAMES_WORTH_COMPILING and (device.type == 'cuda' or precision != 'fp32')
    return 'compile' if pays and _has_compiler(device) else 'torch'


def _has_compiler(device: torch.device) -> bool:
    if device.type == 'cuda':
        return importlib.util.find_spec('triton') is not None
    return device.type == 'cpu' and shutil.which(os.environ.get('CXX', 'g++')) is not None


@functools.cache
def _bf16_is_quick() -> bool:
    """Lets matrix products race. Flags do not tell: with AMX bf16 is 16 times as quick, with AVX512-BF16 0.4 to 2."""
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    matrices = {dtype: torch.ones(512, 512, dtype=dtype) for dtype in times}
    for _ in range(9):
        for dtype, matrix in matrices.items():
            start = time.perf_counter()
            matrix @ matrix
            times[dtype].append(time.perf_counter() - start)
    return min(times[torch.float32]) > 1.5 * min(times[torch.bfloat16])


class _TorchForward:
    """Folded, channels_last, and with autocast, which leaves what a network adds to its input in float32."""

    def __init__(self, net: nn.Module, device: torch.device, precision: str) -> None:
        self.net = fold(net).to(device)
        self.device = device
        self.amp = None if precision == 'fp32' else precision
        prepare_network(self.net, channels_last=True)

    @torch.no_grad()
    def __call__(self, window: Tensor) -> Tensor:
        with autocast(self.device, self.amp):
            return self.net(window.to(self.device)).to(window)


def _compiled(plain: _TorchForward) -> Forward:
    """Weights become constants ("freezing"), so that their conversions and layouts are done once."""
    compiled = torch.compile(plain.net, dynamic=False, options={'freezing': True})

    @torch.no_grad()
    def forward(window: Tensor) -> Tensor:
        with autocast(plain.device, plain.amp):
            return compiled(window.to(plain.device)).to(window)

    return forward


class _OpenVINOForward:
    """The network as OpenVINO's compiled model, which is kept for the size of the last window alone.

    Raises, at its first call:
        RuntimeError: The converted network computes something else.
    """

    def __init__(self, net: nn.Module, precision: str) -> None:
        self.net = fold(net).cpu()
        self.hint = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16'}[precision]
        self.model: Any = None
        self.shape: torch.Size | None = None
        self.compiled: Any = None

    def __call__(self, window: Tensor) -> Tensor:
        if self.model is None:
            self._convert(window.shape[:3])
        if window.shape != self.shape:
            self._compile(window.shape)
        return torch.from_numpy(self.compiled(np.ascontiguousarray(window))[0])

    @torch.no_grad()
    def _convert(self, shape: tuple[int, ...]) -> None:
        """Converts with one small window and compares with another one: sizes must not have become constants."""
        first, second = (torch.linspace(0, 1, h * w).reshape(h, w).repeat(*shape, 1, 1) for h, w in _PROBE_SIZES)
        self.model = _to_openvino(self.net, first)
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
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        }
        self.compiled = _openvino_core().compile_model(self.model, 'CPU', options)
        self.shape = shape


def _import_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry, which would report each use to its makers and write into the home."""
    # None refuses the import; the stub knows modules alone
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    return importlib.import_module('openvino')


@functools.cache
def _openvino_core() -> Any:
    """One for the whole process: freeing models whose cores have gone can crash it."""
    return _import_openvino().Core()


def _to_openvino(net: nn.Module, example: Tensor) -> Any:
    """Converts as ``openvino.convert_model`` does, in a fifth of the time: the trace is not checked, see the caller."""
    _import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(action='ignore'):  # what tracing says of every assert
        traced = torch.jit.trace(net, example, check_trace=False)
    frontend = FrontEndManager().load_by_framework('pytorch')
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # a name keeps it alive
    return frontend.convert(frontend.load(decoder))


class _FallingBack:
    """Uses a backend until it fails, and then, having said why, another one.

    Running out of memory is no failure of the backend: smaller tiles are the answer to that.
    """

    def __init__(self, forward: Forward, fallback: Forward, name: str) -> None:
        self.forward = forward
        self.fallback = fallback
        self.name = name

    def __call__(self, window: Tensor) -> Tensor:
        try:
            return self.forward(window)
        except Exception as error:
            if self.forward is self.fallback or is_out_of_memory(error):
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            logging.getLogger('dblr_plugin').warning(
                '%s cannot run this network (%s); going on without it.', self.name, reason
            )
            self.forward = self.fallback
        return self.fallback(window)
