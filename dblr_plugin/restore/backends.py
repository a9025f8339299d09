"""Runs a network as fast as this machine allows: precision, memory layout, PyTorch, compilation, OpenVINO or MNN.

Every backend computes the same as the network in float32, up to the rounding of the chosen precision; ``torch`` with
``fp32`` is the reference. ``scripts/speed/inference.py`` measures the gain of each step on a machine.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dblr_plugin.acceleration import autocast, fold, prepare_network
from dblr_plugin.archs.traits import restored_of
from dblr_plugin.errors import DBLRError, first_line, nearest
from dblr_plugin.processor import cpu_flags
from dblr_plugin.restore.mnn_forward import MNNForward, mnn_installed, mnn_is_fastest
from dblr_plugin.restore.openvino_forward import (
    Int8Forward,
    OpenVINOForward,
    int8_is_fast,
    nncf_installed,
    openvino_devices,
    openvino_installed,
)

__all__ = ['BACKENDS', 'PRECISIONS', 'Forward', 'build_forward', 'choose', 'is_out_of_memory', 'openvino_installed']

_log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor]

BACKENDS = ('auto', 'torch', 'compile', 'openvino', 'mnn')
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16', 'int8')

#: Number of frames from which torch.compile or quantisation is worth its half a minute.
FRAMES_WORTH_COMPILING = 100


def build_forward(
    net: nn.Module, device: torch.device, backend: str = 'auto', precision: str = 'auto', frames: int = 1
) -> Forward:
    """Prepares a copy of a network for restoring frames.

    Args:
        net: ``(1, t, c, h, w)`` to ``(1, c, h, w)``; it is not changed.
        device: Where to run it.
        backend: ``torch``, ``compile`` (torch.compile), ``openvino`` or ``mnn`` (CPUs), or ``auto``: the fastest
            available. OpenVINO's other devices follow a colon: ``openvino:GPU``, ``openvino:NPU``.
        precision: ``fp32``, ``bf16``, ``fp16``, ``int8`` (OpenVINO, see :class:`Int8Forward`), or ``auto``: a lower
            precision where it is faster on this device.
        frames: Number of frames to restore, for ``auto`` to decide whether compiling and quantising pay off.

    Returns:
        ``(1, t, c, h, w)`` float32 to ``(1, c, h, w)`` float32, on the input's device. The first call for each size
        takes longer. If the backend cannot run the network, it logs a warning and falls back to ``torch``.

    Raises:
        DBLRError: If a name is unknown, or this machine does not have the backend.
    """
    backend, _, target = backend.partition(':')
    if target and target != 'CPU':
        return _on_openvino_device(net, target, precision)
    asked_backend, asked_precision = backend, precision
    obstacle = _why_not_int8(device, backend, frames)
    backend, precision = choose(device, backend, precision, frames)
    if precision == 'int8':
        other = _best_precision(device)
        return Int8Forward(net, build_forward(net, device, asked_backend, other), other, asked_precision == 'int8')
    if asked_precision == 'auto':
        reason = f', no int8: {obstacle}' if device.type == 'cpu' else ''
        _log.info(f'Backend {backend}, precision {precision}{reason}.')
    if asked_backend == 'auto' and device.type == 'cpu' and (extra := _missing_extra()):
        _log.info(f"Faster on this processor: pip install 'dblr_plugin[{extra}]'.")
    if backend == 'mnn':
        forward, is_auto = MNNForward(net), asked_backend == 'auto'
        # OpenVINO knows more operations
        fallback = build_forward(net, device, 'openvino' if is_auto and openvino_installed() else 'torch', precision)
        return _FallingBack(forward, fallback, 'MNN', logging.INFO if is_auto else logging.WARNING)
    prepared = fold(net).to(device)
    prepare_network(prepared, channels_last=True)
    plain = _in_torch(prepared, device, precision)
    if backend == 'compile':
        # weights as constants ("freezing") are converted and laid out only once
        compiled = torch.compile(prepared, dynamic=False, options={'freezing': True})
        return _FallingBack(_in_torch(compiled, device, precision), plain, 'torch.compile')
    if backend == 'openvino':
        return _FallingBack(OpenVINOForward(net, precision), plain, 'OpenVINO')
    return plain


def _on_openvino_device(net: nn.Module, target: str, precision: str) -> Forward:
    """Prepares a network for an Intel GPU or NPU, in fp16 unless fp32 is requested, as they have no bf16."""
    if not openvino_installed():
        raise DBLRError(f'device openvino:{target} needs: pip install openvino')
    if target not in openvino_devices():
        raise DBLRError(f"OpenVINO has no device '{target}' here, only {', '.join(openvino_devices())}")
    if precision not in ('auto', 'fp16', 'fp32'):
        raise DBLRError(f'device openvino:{target} takes precision fp16 or fp32, not {precision}')
    forward = OpenVINOForward(net, 'fp32' if precision == 'fp32' else 'fp16', device=target)
    return _FallingBack(forward, build_forward(net, torch.device('cpu'), 'torch', 'fp32'), f'OpenVINO on {target}')


def choose(device: torch.device, backend: str, precision: str, frames: int = 1) -> tuple[str, str]:
    """Resolves ``auto`` to the fastest choice on this device; arguments and errors as for :func:`build_forward`."""
    for value, known, name in ((backend, BACKENDS, 'backend'), (precision, PRECISIONS, 'precision')):
        if value not in known:
            raise DBLRError(f"there is no {name} '{value}', only {', '.join(known)}{nearest(value, known)}")
    if backend in ('openvino', 'mnn') and device.type != 'cpu':
        raise DBLRError(f'backend {backend} runs on the CPU, not on {device}; use auto')
    if backend == 'openvino' and not openvino_installed():
        raise DBLRError('backend openvino needs: pip install openvino')
    if backend == 'mnn' and not mnn_installed():
        raise DBLRError('backend mnn needs: pip install mnn')
    if backend == 'mnn' and precision not in ('auto', 'fp32', 'int8'):
        raise DBLRError(f'backend mnn takes precision fp32, not {precision}')
    if precision == 'int8':
        _require_int8(device, backend)
    elif precision == 'auto' and backend == 'mnn':
        precision = 'fp32'
    elif precision == 'auto':
        precision = _best_precision(device) if _why_not_int8(device, backend, frames) else 'int8'
    if precision == 'int8':
        return 'openvino', 'int8'
    return _best_backend(device, precision, frames) if backend == 'auto' else backend, precision


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. Only CUDA's allocator has an error type for it: not cuBLAS, MPS, CPUs or OpenVINO."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    texts = ('out of memory', 'ALLOC_FAILED', 'DefaultCPUAllocator', 'bad_alloc', 'not enough memory')
    return any(text in str(error) for text in texts)


def _best_precision(device: torch.device) -> str:
    if device.type == 'cuda':
        capability = torch.cuda.get_device_capability(device)
        return 'bf16' if capability >= (8, 0) else 'fp16' if capability >= (7, 0) else 'fp32'
    return 'bf16' if device.type == 'cpu' and _bf16_is_fast() else 'fp32'


def _require_int8(device: torch.device, backend: str) -> None:
    """Raises DBLRError if int8 is not available."""
    if device.type != 'cpu' or backend not in ('auto', 'openvino'):
        where = device if device.type != 'cpu' else f'backend {backend}'
        raise DBLRError(f'precision int8 is for OpenVINO on the CPU, not for {where}; use precision auto')
    if not (openvino_installed() and nncf_installed()):
        raise DBLRError("precision int8 needs OpenVINO and NNCF: pip install 'dblr_plugin[int8]'")


def _why_not_int8(device: torch.device, backend: str, frames: int) -> str | None:
    """Returns why ``auto`` does not try int8; None if it does."""
    if device.type != 'cpu' or backend not in ('auto', 'openvino'):
        return 'it is for OpenVINO on the CPU'
    if not int8_is_fast():
        return 'the processor has neither VNNI nor AMX-int8'
    if not (openvino_installed() and nncf_installed()):
        return "it needs pip install 'dblr_plugin[int8]'"
    if frames < FRAMES_WORTH_COMPILING:
        return 'calibrating takes longer than it would save on so few frames'
    return None


def _missing_extra() -> str | None:
    """Returns the extra with a faster backend that is not installed; None if there is none, or none was measured."""
    if mnn_is_fastest():
        return None if mnn_installed() else 'mnn'
    return 'openvino' if 'avx2' in cpu_flags() and not openvino_installed() else None


def _best_backend(device: torch.device, precision: str, frames: int) -> str:
    if device.type == 'cpu' and precision == 'fp32' and mnn_installed() and mnn_is_fastest():
        return 'mnn'
    if device.type == 'cpu' and openvino_installed():
        return 'openvino'
    # measured: no gain on CPUs in fp32
    pays = frames >= FRAMES_WORTH_COMPILING and (device.type == 'cuda' or precision != 'fp32')
    return 'compile' if pays and _has_compiler(device) else 'torch'


def _has_compiler(device: torch.device) -> bool:
    if device.type == 'cuda':
        return importlib.util.find_spec('triton') is not None
    return device.type == 'cpu' and shutil.which(os.environ.get('CXX', 'g++')) is not None


@functools.cache
def _bf16_is_fast() -> bool:
    """Times matrix products. CPU flags are no guide: bf16 is 16 times as fast with AMX, 0.4 to 2 with AVX512-BF16."""
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    matrices = {dtype: torch.ones(512, 512, dtype=dtype) for dtype in times}
    for _ in range(9):
        for dtype, matrix in matrices.items():
            start = time.perf_counter()
            matrix @ matrix
            times[dtype].append(time.perf_counter() - start)
    return min(times[torch.float32]) > 1.5 * min(times[torch.bfloat16])


def _in_torch(net: Callable[[Tensor], Tensor], device: torch.device, precision: str) -> Forward:
    """Runs a network under autocast, which keeps the sum with the blurry frame in float32."""
    amp = None if precision == 'fp32' else precision

    @torch.no_grad()
    def forward(window: Tensor) -> Tensor:
        with autocast(device, amp):
            # a copy, as third-party networks may change their input, which tiles and other backends share
            return restored_of(net(window.to(device, copy=True))).to(window)

    return forward


class _FallingBack:
    """Uses a backend until it fails, then logs the reason and switches to the fallback.

    Running out of memory does not count as a failure: it is handled by smaller tiles.
    """

    def __init__(self, forward: Forward, fallback: Forward, name: str, level: int = logging.WARNING) -> None:
        self.forward = forward
        self.fallback = fallback
        self.name = name
        self.level = level  # of the message

    def __call__(self, window: Tensor) -> Tensor:
        forward = self.forward  # another thread may switch meanwhile
        try:
            return forward(window)
        except Exception as error:
            if forward is self.fallback or is_out_of_memory(error):
                raise
            message = '%s cannot run this network (%s); continuing without it.'
            _log.log(self.level, message, self.name, first_line(error))
            self.forward = self.fallback
        return self.fallback(window)
