"""Time and memory of several variants of the same work, measured in interleaved rounds.

Every round runs all variants, so that other load on the machine affects them equally. The first round is for warm-up
(and compilation) and is not counted. A variant's figure is the median over rounds. Devices are synchronised before the
clock is read.

Methods are timed from an 8-bit frame to a restored one, including conversions, tiling and copies from and to the
device.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dblr_plugin.processes import fork_context
from dblr_plugin.restore.video_restorer import VideoRestorer

__all__ = ['MEMORY', 'MIN_ROUNDS', 'Variant', 'figures', 'measure', 'peak_memory', 'run_rounds', 'spread', 'waited_for']

MIN_ROUNDS = 3


@dataclass
class Variant:
    """One way to do the work.

    Attributes:
        text: Description for users.
        run: Does the work once, and waits for its device.
        baseline: Name of the variant whose time is divided by this one's; None if there is none.
        result: Result of the last run of the first round.
        first: Milliseconds of the first round.
        rounds: Milliseconds of each further round.
    """

    text: str
    run: Callable[[], Any]
    baseline: str | None = None
    result: Any = None
    first: float = 0.0
    rounds: list[float] = field(default_factory=list)


def run_rounds(ways: Sequence[Variant], seconds: float, turn: float = 0) -> None:
    """Runs all variants in rounds until the time is up, with at least three rounds after the first.

    Args:
        ways: The variants; their ``result``, ``first`` and ``rounds`` are filled in.
        seconds: Time to measure for.
        turn: Seconds to repeat a variant for in each round, which counts as the mean; 0 runs it once.
    """
    start = time.perf_counter()
    for number in itertools.count():
        for way in tqdm(ways, f'round {number}', leave=False, disable=None):
            result, milliseconds = _turn(way.run, turn)
            if number:
                way.rounds.append(milliseconds)
            else:
                way.result, way.first = result, milliseconds
        if number >= MIN_ROUNDS and time.perf_counter() - start >= seconds:
            return


def _turn(run: Callable[[], Any], seconds: float) -> tuple[Any, float]:
    """Returns the result of the last run, and the mean milliseconds per run."""
    start, count = time.perf_counter(), 0
    while True:
        result = run()
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return result, elapsed * 1000 / count


def waited_for(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """Wraps a function so that it returns only when the device has finished."""

    def waiting() -> Any:
        result = run()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return result

    return waiting


def spread(way: Variant) -> dict[str, Any]:
    """Returns ``median_ms``, ``quartiles_ms`` (two), ``min_ms``, ``max_ms``, ``rounds_ms`` and ``first_ms``."""
    least, lower, median, upper, most = np.percentile(way.rounds, (0, 25, 50, 75, 100)).tolist()
    return {
        'median_ms': median,
        'quartiles_ms': [lower, upper],
        'min_ms': least,
        'max_ms': most,
        'rounds_ms': way.rounds,
        'first_ms': way.first,
    }


def figures(ways: dict[str, Variant]) -> dict[str, dict[str, Any]]:
    """Returns each variant's ``text``, ``baseline``, ``ratio`` (baseline median to its own), and :func:`spread`."""
    found = {name: {'text': way.text, 'baseline': way.baseline} | spread(way) for name, way in ways.items()}
    for way in found.values():
        way['ratio'] = found[way['baseline']]['median_ms'] / way['median_ms']
    return found


MEMORY = (
    "peak memory for two frames, including weights and compilation: on GPUs what PyTorch's allocator held for it, on "
    'CPUs the growth of resident memory of a fresh process'
)


def peak_memory(make: Callable[[], Callable[[], object]], device: torch.device) -> int | None:
    """Measures the peak memory of building something and running it twice; on CPUs in a fresh process.

    Args:
        make: Returns the function to run; must be picklable.
        device: Where it runs.

    Returns:
        Bytes; None if the system does not report them or killed the process.
    """
    if device.type == 'cuda':
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _run_twice(make)
        return torch.cuda.max_memory_allocated(device) - held
    with ProcessPoolExecutor(1, fork_context()) as pool:
        try:
            return pool.submit(_growth, make, torch.get_num_threads()).result()
        except BrokenProcessPool:
            return None


def _run_twice(make: Callable[[], Callable[[], object]]) -> None:
    run = make()
    for _ in range(2):
        run()


def _growth(make: Callable[[], Callable[[], object]], threads: int) -> int | None:
    torch.set_num_threads(threads)
    before = _high_water()
    _run_twice(make)
    after = _high_water()
    return None if before is None or after is None else after - before


def _high_water() -> int | None:
    """Returns this process's peak resident bytes; getrusage would include those of the process it was forked from."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith('VmHWM')), None)


def measure(
    methods: Mapping[str, Callable[[], VideoRestorer]], device: torch.device, size: tuple[int, int], seconds: float
) -> dict:
    """Measures all methods.

    Args:
        methods: Name -> function that builds the method. It is also called in another process, so it must be picklable:
            ``partial(VideoRestorer.from_weights, path)``, or a module-level function.
        device: Where they run.
        size: Width and height of the frames, in pixels.
        seconds: Time for the rounds; at least three are run, however long they take.

    Returns:
        ``size`` (h, w), ``device``, ``threads``, and ``methods``, which maps a name to the figures of :func:`spread`
        and ``peak_bytes`` (None if the system does not report them or killed the process).
    """
    makers = {name: partial(_frame_maker, method, size) for name, method in methods.items()}
    peaks = {name: peak_memory(make, device) for name, make in tqdm(makers.items(), 'memory', disable=None)}
    ways = {name: Variant(name, waited_for(make(), device)) for name, make in makers.items()}
    run_rounds([*ways.values()], seconds)
    return {
        'size': list(size[::-1]),
        'device': str(device),
        'threads': torch.get_num_threads(),
        'methods': {name: spread(way) | {'peak_bytes': peaks[name]} for name, way in ways.items()},
    }


def _frame_maker(make: Callable[[], VideoRestorer], size: tuple[int, int]) -> Callable[[], object]:
    """Builds a method and returns a function that restores its next frame."""
    frame = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    # shifted copies, as alignment skips identical frames
    frames = [np.roll(frame, 2 * shift, axis=1) for shift in range(8)]
    return partial(next, make().restore(itertools.cycle(frames)))
