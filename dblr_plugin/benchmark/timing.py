"""Time and memory for a frame, of several methods in one run.

All methods take turns in every round, so that whatever else the machine does strikes all of them; the first round
warms up (and compiles) and is not counted. Devices are waited for before a clock is read. A method's memory is
measured in a process of its own, where nothing else has used any.

A method is timed as it is given: a :class:`VideoRestorer` from a frame of 8 bits to a restored one, its conversions,
tiles and copies from and to the device included; a network or another forward pass on its window alone.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from tqdm import tqdm

from dblr_plugin.bench.inference import _high_water
from dblr_plugin.inference.backends import Forward
from dblr_plugin.inference.video_restorer import VideoRestorer

__all__ = ['METHOD', 'Method', 'measure']

MIN_ROUNDS = 3
METHOD = {
    'order': 'all methods in every round, the first round not counted',
    'figure': 'median, quartiles and extremes over rounds of the milliseconds for a frame, the device waited for',
    'memory': "a fresh process's peak for two frames, weights included: on GPUs what PyTorch's allocator held, on CPUs "
    'the growth of resident memory',
}


@dataclass(frozen=True)
class Method:
    """A method to measure.

    Attributes:
        make: Builds it: a :class:`VideoRestorer`, or a forward pass ``(1, t, c, h, w)`` to ``(1, c, h, w)``, such as
            a network in evaluation mode. It is called in another process too, and must be picklable:
            ``partial(VideoRestorer.from_weights, path)``, or a function of a module.
        window: Frames and channels of a forward pass's windows.
    """

    make: Callable[[], VideoRestorer | Forward]
    window: tuple[int, int] = (5, 3)


def measure(
    methods: Mapping[str, Method],
    device: torch.device,
    size: tuple[int, int] = (1280, 720),
    seconds: float = 60,
) -> dict:
    """Measures all methods.

    Args:
        methods: Those to compare, by name.
        device: Where they run; windows of forward passes lie there.
        size: Width and height of the frames, in pixels.
        seconds: Time for the rounds; at least three are made, whatever they take.

    Returns:
        ``size`` (h, w), ``device``, ``threads``, and ``methods``, which maps a name to ``median_ms``,
        ``quartiles_ms`` (two), ``min_ms``, ``max_ms``, ``rounds_ms``, ``first_ms`` and ``peak_bytes`` (None where the
        system does not tell, or killed the process).
    """
    peaks = {
        name: _peak_in_process(method, size, device) for name, method in tqdm(methods.items(), 'memory', disable=None)
    }
    turns = {name: _turn(method, size, device) for name, method in methods.items()}
    first = {name: _milliseconds(turn, device) for name, turn in tqdm(turns.items(), 'warming up', disable=None)}
    rounds: dict[str, list[float]] = {name: [] for name in methods}
    start = time.perf_counter()
    for number in tqdm(itertools.count(1), 'rounds', disable=None):
        for name, turn in turns.items():
            rounds[name].append(_milliseconds(turn, device))
        if number >= MIN_ROUNDS and time.perf_counter() - start >= seconds:
            break
    return {
        'size': list(size[::-1]),
        'device': str(device),
        'threads': torch.get_num_threads(),
        'methods': {
            name: _figures(rounds[name]) | {'first_ms': first[name], 'peak_bytes': peaks[name]} for name in methods
        },
    }


def _turn(method: Method, size: tuple[int, int], device: torch.device) -> Callable[[], object]:
    """Builds a method, and returns what restores its next frame."""
    made, (width, height) = method.make(), size
    if isinstance(made, VideoRestorer):
        frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        # alignment leaves frames alone that are one and the same
        frames = [np.roll(frame, 2 * shift, axis=1) for shift in range(8)]
        return partial(next, made.restore(itertools.cycle(frames)))
    window = torch.rand(1, *method.window, height, width, device=device)
    return torch.no_grad()(partial(made, window))


def _milliseconds(turn: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    start = time.perf_counter()
    turn()
    _wait_for(device)
    return (time.perf_counter() - start) * 1000


def _wait_for(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _figures(rounds: list[float]) -> dict:
    lower, median, upper = statistics.quantiles(rounds, n=4, method='inclusive')
    return {
        'median_ms': median,
        'quartiles_ms': [lower, upper],
        'min_ms': min(rounds),
        'max_ms': max(rounds),
        'rounds_ms': rounds,
    }


def _peak_in_process(method: Method, size: tuple[int, int], device: torch.device) -> int | None:
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        try:
            return pool.submit(_peak, method, size, device, torch.get_num_threads()).result()
        except BrokenProcessPool:
            return None


def _peak(method: Method, size: tuple[int, int], device: torch.device, threads: int) -> int | None:
    torch.set_num_threads(threads)
    before = _high_water()
    turn = _turn(method, size, device)
    for _ in range(2):
        turn()
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    return None if before is None else _high_water() - before
