"""How fast networks restore frames on this machine, step by step from plain PyTorch to what ``dblr deblur`` does.

All steps take turns in every round, as in :mod:`dblr_plugin.bench.data`; the first round warms up (and compiles)
and is not counted. So that a time is comparable with what the machine can do, matrix products take turns with them.
Weights are random, which changes no time; so that precisions differ as much as in a trained network, the last layer of
DBLRNet is fitted to the frame.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from basicsr.archs import build_network
from basicsr.archs.edvr_arch import EDVR
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from dblr_plugin.archs import DBLRNet
from dblr_plugin.bench.end_to_end import DBLR, measure_video
from dblr_plugin.bench.frames import generate_sample
from dblr_plugin.data.frames import to_planes, unit_range
from dblr_plugin.data.images import decode, is_image, natural, opened
from dblr_plugin.errors import DBLRError
from dblr_plugin.forward.backends import Forward, build_forward, choose, openvino_installed
from dblr_plugin.forward.folding import fold
from dblr_plugin.models.restorer import to_network_colour

__all__ = ['METHOD', 'measure', 'own_window', 'generated_window']

WINDOW = 5
MULTIPLE = 16  # EDVR's
MIN_ROUNDS = 3
MATRIX = 2048
RIDGE = 0.1  # of the mean diagonal
DEVICE = torch.device('cpu')
PAPER, EDVR_M, DBN = 'DBLRNet (the paper)', 'EDVR-M', 'DBN'
BASELINE = 'eager fp32'
METHOD = {
    'window': WINDOW,
    'weights': 'random; the last layer of DBLRNet fitted, so that it gives the middle frame',
    'order': 'all steps in every round, the first round not counted',
    'figure': 'median over rounds of the milliseconds for a frame',
    'decibels': 'PSNR, peak 1, of the output against that of eager fp32',
    'operations': 'of convolutions and matrix products, two for a multiplication with addition',
    'matrix product': f'{MATRIX}x{MATRIX}, median over rounds; Winograd convolutions can pass its speed',
    'memory': "growth of a fresh process's peak by its first frame, compiling included",
    'video': 'file to file, with a causal DBLRNet; compiling not counted',
    'latency': 'of dblr deblur on that video, for a frame, from decoded to restored',
}


@dataclass
class Step:
    """One way to run a network.

    Attributes:
        forward: Runs it.
        precision: That its operations have.
        first: Milliseconds of the first call, which compiles.
        output: What that returned.
        rounds: Milliseconds for a frame, in each round.
    """

    forward: Forward
    precision: str
    first: float = 0.0
    output: Tensor | None = None
    rounds: list[float] = field(default_factory=list)


def own_window(folder: Path, size: tuple[int, int]) -> tuple[str, Tensor]:
    """The middle five frames of a folder, as :func:`generated_window`.

    Raises:
        DBLRError: There are fewer, or they cannot be used.
    """
    if not folder.is_dir():
        raise DBLRError(f'{folder} is not a folder of frames')
    paths = sorted((p for p in folder.iterdir() if is_image(p.name)), key=lambda path: natural(path.name))
    if len(paths) < WINDOW:
        raise DBLRError(f'{folder} holds {len(paths)} frames; {WINDOW} are needed')
    return str(folder), _window(paths, size)


def generated_window(size: tuple[int, int]) -> tuple[str, Tensor]:
    """Where the frames come from, and five of them.

    Args:
        size: Width and height, in pixels; the middle is cut out, to multiples of 16.

    Returns:
        RGB ``(1, 5, 3, h, w)`` in [0, 1].

    Raises:
        DBLRError: They are smaller than 16x16.
    """
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        sample = generate_sample(Path(folder), '.png')
        return sample.origin, _window(sorted(sample.lq.glob('*/*')), size)


def _window(paths: list[Path], size: tuple[int, int]) -> Tensor:
    first = (len(paths) - WINDOW) // 2
    planes = []
    for path in paths[first : first + WINDOW]:
        with opened(path) as file:
            planes.append(to_planes(decode(file.read(), str(path))))
    if len({p.shape for p in planes}) > 1:
        raise DBLRError(f'{paths[0].parent} holds frames of different sizes')
    h, w = (min(have, want) // MULTIPLE * MULTIPLE for have, want in zip(planes[0].shape[1:], size[::-1], strict=True))
    if not h * w:
        raise DBLRError(f'frames and size must be at least {MULTIPLE}x{MULTIPLE}')
    top, left = (planes[0].shape[1] - h) // 2, (planes[0].shape[2] - w) // 2
    return unit_range([p[:, top : top + h, left : left + w].copy() for p in planes]).unsqueeze(0)


def measure(window: Tensor, seconds: float, full: bool = False) -> dict:
    """Measures all networks and steps that this machine has.

    Args:
        window: RGB ``(1, 5, 3, h, w)`` in [0, 1].
        seconds: Time to measure for; at least three rounds are made, whatever they take.
        full: Also compiles EDVR, and fp32, which takes minutes and brings nothing on the machines it was measured on.

    Returns:
        ``size`` (h, w), ``threads``, ``auto`` (what would be chosen), ``matrix_gflops`` (of each precision),
        ``networks``, which maps a name to ``gflop`` (for a frame) and ``steps``, and ``video``: see
        :func:`measure_video`. The steps map a name to ``median_ms``, ``min_ms``, ``max_ms``, ``rounds_ms``,
        ``first_ms``, ``ratio``, ``decibels`` (None for equality), ``gflops``, ``share`` (of the matrix product's speed)
        and ``peak_bytes`` (None where the system does not tell); the video's ways have ``gflops`` and ``share`` too.
    """
    video = measure_video(_paper, window, seconds / 2)  # first, while nothing else has threads and memory
    nets = {name: _build(name) for name in _CHANNELS}
    _fitted(nets[PAPER], window)
    steps = {
        name: {step: Step(_forward(net, step), step.split()[1]) for step in _step_names(name == PAPER or full, full)}
        for name, net in nets.items()
    }
    matrices = {precision: Step(_matrix_product(dtype), precision) for precision, dtype in _DTYPES.items()}
    inputs = {name: to_network_colour(window, _CHANNELS[name]).contiguous() for name in nets}
    turns = [(step, inputs[name]) for name, network_steps in steps.items() for step in network_steps.values()]
    _run_rounds([*turns, *((step, window) for step in matrices.values())], seconds)
    speeds = {precision: 2 * MATRIX**3 / statistics.median(m.rounds) / 1e6 for precision, m in matrices.items()}
    networks = {}
    for name, network_steps in steps.items():
        operations = _operations(nets[name], inputs[name])
        figures = {
            step_name: _figures(step, network_steps[BASELINE], operations, speeds)
            | {'peak_bytes': _peak_in_process(name, step_name, tuple(inputs[name].shape))}
            for step_name, step in network_steps.items()
        }
        networks[name] = {'gflop': operations / 1e9, 'steps': figures}
    backend, precision = choose(DEVICE, 'auto', 'auto', frames=1000)
    for name, way in video['ways'].items():
        way['gflops'] = networks[PAPER]['gflop'] * video['frames'] / way['median_ms'] * 1000
        way['share'] = way['gflops'] / speeds[precision if name == DBLR else 'fp32']
    return {
        'size': list(window.shape[-2:]),
        'threads': torch.get_num_threads(),
        'auto': f'{backend} {precision}',
        'matrix_gflops': speeds,
        'networks': networks,
        'video': video,
    }


_DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
_CHANNELS = {PAPER: 1, EDVR_M: 3, DBN: 3}


def _build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return {PAPER: _paper, EDVR_M: _edvr, DBN: _dbn}[name]().eval()


def _paper(causal: bool = False) -> DBLRNet:
    return DBLRNet(causal=causal)


def _edvr() -> EDVR:
    """BasicSR's, as published for deblurring, with features as narrow as DBLRNet's."""
    return EDVR(num_feat=64, num_extract_block=5, num_reconstruct_block=10, hr_in=True, with_predeblur=True)


def _dbn() -> nn.Module:
    return build_network({'type': 'DBN'})


@torch.no_grad()
def _fitted(net: DBLRNet, window: Tensor) -> DBLRNet:
    """Fits the last layer of a DBLRNet without skip, by ridge regression, so that it gives the middle frame.

    In bf16 that differs from fp32 by 56 dB, a network trained for a short time by 60 dB, random weights scaled to the
    contrast of a frame by 35 to 49 dB: they magnify what no trained network does.
    """
    window = to_network_colour(window, 1)[..., :96, :96]
    last, caught = net.reconstruction[-1], []
    hook = last.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    net(window)
    hook.remove()
    features = nn.functional.unfold(caught[0], 3, padding=1)[0].T  # (pixels, weights)
    target = window[0, WINDOW // 2].flatten()
    means = features.mean(dim=0), target.mean()
    features, target = features - means[0], target - means[1]
    products = features.T @ features
    ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products))
    weight = torch.linalg.solve(products + ridge, features.T @ target)
    last.weight.copy_(weight.view_as(last.weight))
    last.bias.copy_(means[1] - means[0] @ weight)
    return net


def _step_names(compiles: bool, full: bool) -> list[str]:
    """All steps that this machine has, the plain one first."""
    names = [BASELINE, 'folded fp32', 'torch fp32', 'torch bf16']
    names += ['compile fp32'] * full + ['compile bf16'] * compiles
    return names + ['openvino fp32', 'openvino bf16'] * openvino_installed()


def _forward(net: nn.Module, step: str) -> Forward:
    backend, precision = step.split()
    if backend in ('eager', 'folded'):
        return torch.no_grad()(fold(net) if backend == 'folded' else copy.deepcopy(net))
    return build_forward(net, DEVICE, backend, precision)


def _matrix_product(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    matrix = torch.ones(MATRIX, MATRIX, dtype=dtype)
    return lambda window: matrix @ matrix


def _run_rounds(turns: list[tuple[Step, Tensor]], seconds: float) -> None:
    """Lets all steps take turns until the time is over."""
    for step, window in tqdm(turns, desc='preparing', leave=False, disable=None):
        start = time.perf_counter()
        step.output = step.forward(window)
        step.first = (time.perf_counter() - start) * 1000
    start, done = time.perf_counter(), 0
    while done < MIN_ROUNDS or time.perf_counter() - start < seconds:
        done += 1
        for step, window in tqdm(turns, desc=f'round {done}', leave=False, disable=None):
            before = time.perf_counter()
            step.forward(window)
            step.rounds.append((time.perf_counter() - before) * 1000)


def _operations(net: nn.Module, window: Tensor) -> int:
    """Counted on a small piece, for it has the same share in every pixel."""
    piece = window[..., :64, :64]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(piece)
    return counter.get_total_flops() * window[0, 0, 0].numel() // piece[0, 0, 0].numel()


def _figures(step: Step, baseline: Step, operations: int, speeds: dict[str, float]) -> dict:
    median = statistics.median(step.rounds)
    error = (step.output - baseline.output).double().square().mean()
    gflops = operations / median / 1e6
    return {
        'median_ms': median,
        'min_ms': min(step.rounds),
        'max_ms': max(step.rounds),
        'rounds_ms': step.rounds,
        'first_ms': step.first,
        'ratio': statistics.median(baseline.rounds) / median,
        'decibels': -10 * torch.log10(error).item() if error else None,
        'gflops': gflops,
        'share': gflops / speeds[step.precision],
    }


def _peak_in_process(network: str, step: str, shape: tuple[int, ...]) -> int | None:
    """The growth of a fresh process's peak memory by a step's first frame."""
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(_peak, network, step, shape, torch.get_num_threads()).result()


def _peak(network: str, step: str, shape: tuple[int, ...], threads: int) -> int | None:
    torch.set_num_threads(threads)
    forward = _forward(_build(network), step)
    window = torch.rand(shape)
    before = _high_water()
    forward(window)
    return None if before is None else _high_water() - before


def _high_water() -> int | None:
    """The most bytes that this process has held; getrusage would count those of the process it was forked from."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM')), None)
