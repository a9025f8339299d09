"""Runs networks with MNN in float32: its Winograd convolutions need less than half of the usual multiplications.

On a processor with AVX2 alone, this was 1.5 to 2.5 times as fast as OpenVINO (docs/speed.md).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.acceleration import fold
from dblr_plugin.processor import cpu_flags
from dblr_plugin.restore.openvino_forward import check_result, probe_windows

__all__ = ['MNNForward', 'mnn_installed', 'mnn_is_fastest']


def mnn_installed() -> bool:
    """Whether MNN can be imported."""
    return importlib.util.find_spec('MNN') is not None


def mnn_is_fastest() -> bool:
    """Whether the processor is of the kind on which MNN was measured to be the fastest: AVX2 without AVX-512."""
    flags = cpu_flags()
    return 'avx2' in flags and 'avx512f' not in flags


class MNNForward:
    """Runs a network with MNN. It takes frames of any size, and is converted again for another number of frames.

    Args:
        net: ``(1, t, c, h, w)``, or one frame ``(1, c, h, w)``, to ``(1, c, h, w)``; it is not changed. If it restores
            all frames, to ``(1, t, c, h, w)``.

    Raises, at its first call:
        RuntimeError: If MNN cannot run the network, or computes something else.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = fold(net).cpu()
        self.shape: torch.Size | None = None  # of a window, without height and width
        self.model: Callable[[Tensor], Tensor] | None = None
        self.lock = threading.Lock()  # another thread may need another model

    @torch.no_grad()
    def __call__(self, window: Tensor) -> Tensor:
        """Runs the model on a window; the result is on the CPU.

        Raises:
            MemoryError: If memory runs out.
        """
        with self.lock:
            if self.model is None or window.shape[:-2] != self.shape:
                self.model = None  # frees its memory before the next model allocates
                self.model, self.shape = self._checked_model(window.shape[:-2]), window.shape[:-2]
            return self.model(window)

    def _checked_model(self, shape: torch.Size) -> Callable[[Tensor], Tensor]:
        first, second = probe_windows(shape)
        model = _converted(self.net, first)
        try:
            restored = model(second)
        except MemoryError as error:  # not for want of memory, as the window is small
            raise RuntimeError('it gives no result') from error
        check_result(restored, self.net(second))
        return model


def _converted(net: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns the network as a function of windows, traced with an example."""
    with _CONVERSION, tempfile.TemporaryDirectory() as folder, _quiet(), warnings.catch_warnings(action='ignore'):
        onnx, mnn = (str(Path(folder, name)) for name in ('net.onnx', 'net.mnn'))
        # the exporter before dynamo: a tenth of the time, and results are compared anyway
        torch.onnx.export(
            net,
            (example,),
            onnx,
            input_names=['window'],
            output_names=['restored'],
            dynamic_axes={'window': {example.dim() - 2: 'height', example.dim() - 1: 'width'}},
            opset_version=17,
            dynamo=False,
        )
        import _tools  # MNN's converter; its wrapper in MNN.tools installs a package that reports each use
        import MNN

        _tools.mnnconvert(['mnnconvert', '-f', 'ONNX', '--modelFile', onnx, '--MNNModel', mnn, '--bizCode', 'net'])
        if not Path(mnn).exists():
            raise RuntimeError('it has an operation that MNN does not know')
        options = {'backend': 'CPU', 'precision': 'high', 'numThread': torch.get_num_threads()}
        runtime = MNN.nn.create_runtime_manager((options,))
        module = MNN.nn.load_module_from_file(mnn, ['window'], ['restored'], runtime_manager=runtime)

    def forward(window: Tensor) -> Tensor:
        given = MNN.expr.const(np.ascontiguousarray(window), list(window.shape), MNN.expr.NCHW)
        results = module.forward([given])
        if not results:
            raise MemoryError('MNN ran out of memory')
        return torch.from_numpy(results[0].read().copy())

    return forward


_CONVERSION = threading.Lock()  # torch's exporter can run only once at a time


@contextmanager
def _quiet() -> Iterator[None]:
    """Discards what native code writes to standard output, if that is open."""
    try:
        kept = os.dup(1)
    except OSError:
        yield
        return
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        with open(os.devnull, 'wb') as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # before its buffer can reach the real output
        os.dup2(kept, 1)
        os.close(kept)
