"""The limits of a machine, so that times can be given as a share of them.

Matrix products and convolutions bound the operations of networks in each precision, copying bounds memory traffic. They
are measured in the same rounds as everything else, as a machine's speed changes with temperature and other load. A
network's share is relative to the faster of matrix product and convolution, the operations it consists of. Its memory
traffic depends on how its layers are combined, so for memory only the speed is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from dblr_plugin.benchmark.timing import Variant, spread, waited_for

SIDE = {'cpu': 2048, 'cuda': 4096}
FEATURES = 64
MATRICES = 16  # copied matrices: more than fits into caches
METHOD = {
    'matrix': f'product of two square matrices, {SIDE["cpu"]} a side ({SIDE["cuda"]} on GPUs)',
    'convolution': f'{FEATURES} to {FEATURES} features, 3x3, channels_last, a quarter of that side',
    'memory': f'copying {MATRICES} float32 matrices of that side, each byte counted as read and as written',
    'share': "of the faster of matrix product and convolution in the way's precision, by their medians",
}


@dataclass
class Limit(Variant):
    """A variant that reaches a limit.

    Attributes:
        work: Operations, with two per multiply-add, or bytes.
        unit: ``GFLOPS`` or ``GB/s``.
    """

    work: int = 0
    unit: str = 'GFLOPS'


def limit_ways(device: torch.device) -> dict[str, Limit]:
    """Returns ``matrix`` and ``convolution`` for each precision and ``memory``, to measure with other variants."""
    dtypes = {'fp32': torch.float32, 'bf16': torch.bfloat16}
    if device.type == 'cuda':
        dtypes['fp16'] = torch.float16
    side = SIDE[device.type]
    limits = {}
    for precision, dtype in dtypes.items():
        matrix = torch.ones(side, side, dtype=dtype, device=device)
        limits[f'matrix {precision}'] = partial(torch.mm, matrix, matrix), 2 * side**3
        weight, picture = (
            torch.ones(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
            for shape in ((FEATURES, FEATURES, 3, 3), (1, FEATURES, side // 4, side // 4))
        )
        convolution = partial(F.conv2d, picture, weight, padding=1)
        limits[f'convolution {precision}'] = convolution, 2 * picture[0, 0].numel() * weight.numel()
    ways = {name: Limit(name, waited_for(run, device), work=work) for name, (run, work) in limits.items()}
    return ways | {'memory': memory_limit(device)}


def memory_limit(device: torch.device) -> Limit:
    """Returns the copying limit, to measure with other variants."""
    source = torch.ones(MATRICES, SIDE[device.type], SIDE[device.type], device=device)
    copy = partial(torch.empty_like(source).copy_, source)
    return Limit('memory', waited_for(copy, device), work=2 * source.nbytes, unit='GB/s')


def limit_figures(limits: dict[str, Limit]) -> dict[str, dict[str, Any]]:
    """Returns each limit's ``speed``, its ``unit``, and :func:`spread`."""
    measured = {name: spread(way) for name, way in limits.items()}
    return {
        name: {'speed': way.work / measured[name]['median_ms'] / 1e6, 'unit': way.unit} | measured[name]
        for name, way in limits.items()
    }


def share_of(gflop: float, milliseconds: float, limits: dict[str, dict[str, Any]], precision: str) -> dict[str, float]:
    """Returns the speed of ``gflop`` operations in ``milliseconds``, ``gflops``, and its ``share`` of the limit.

    No limit is measured for int8; its share is relative to that of fp32.
    """
    gflops = gflop / milliseconds * 1000
    precision = 'fp32' if precision == 'int8' else precision
    most = max(limits[f'{kind} {precision}']['speed'] for kind in ('matrix', 'convolution'))
    return {'gflops': gflops, 'share': gflops / most}


def best_device() -> torch.device:
    """Returns the device to measure networks on: the first GPU if there is one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
