"""Runs networks with MNN in float32: its Winograd convolutions need less than half of the usual multiplications.

On processors with AVX2 alone, this is up to twice as fast as OpenVINO, at 90 dB and more from PyTorch (docs/speed.md).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.acceleration import fold
from dblr_plugin.restore.openvino_forward import check_result, probe_windows

__all__ = ['MNNForward', 'mnn_installed', 'mnn_is_fastest']


def mnn_installed() -> bool:
    """Whether MNN can be imported."""
    return importlib.util.find_spec('MNN') is not None


def mnn_is_fastest() -> bool:
    """Whether MNN was measured to be the fastest on such a processor: AVX2 without AVX-512, according to Linux."""
    try:
        flags = set(re.findall(r'\bavx\w*', Path('/proc/cpuinfo').read_text()))
    except OSError:
        return False
    return 'avx2' in flags and 'avx512f' not in flags


class MNNForward:
    """Runs a network with MNN. It is converted once for each number of frames, and takes frames of any size.

    Args:
        net: ``(1, t, c, h, w)``, or one frame ``(1, c, h, w)``, to ``(1, c, h, w)``; it is not changed. If it restores
            all frames, to ``(1, t, c, h, w)``.

    Raises, at its first call:
        RuntimeError: If MNN cannot run the network, or computes something else.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = fold(net).cpu()
        self.models: dict[torch.Size, Callable[[Tensor], Tensor]] = {}  # by a window's shape without height and width

    @torch.no_grad()
    def __call__(self, window: Tensor) -> Tensor:
        """Runs the model on a window; the result is on the CPU."""
        shape = window.shape[:-2]
        if shape not in self.models:
            first, second = probe_windows(shape)
            model = _converted(self.net, first)
            check_result(model(second), self.net(second))
            self.models[shape] = model
        return self.models[shape](window)


def _converted(net: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns the network as a function of windows, traced with an example."""
    with tempfile.TemporaryDirectory() as folder, _quiet(), warnings.catch_warnings(action='ignore'):
        onnx, mnn = (str(Path(folder, name)) for name in ('net.onnx', 'net.mnn'))
        axes = {example.dim() - 2: 'height', example.dim() - 1: 'width'}
        # the exporter before dynamo: a tenth of the time, and results are compared anyway
        torch.onnx.export(
            net,
            (example,),
            onnx,
            input_names=['window'],
            output_names=['restored'],
            dynamic_axes={'window': axes},
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
        return torch.from_numpy(module.forward([given])[0].read().copy())

    return forward


@contextmanager
def _quiet() -> Iterator[None]:
    """Discards what native code writes to standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # before its buffer can reach the real output
        os.dup2(kept, 1)
        os.close(kept)
