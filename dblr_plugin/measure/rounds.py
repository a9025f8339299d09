"""Times several variants of the same work in alternating rounds.

All ways take turns in every round, so that whatever else the machine does strikes all of them. The first round warms
up (and compiles) and is not counted. The figure of a way is the median over rounds.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

__all__ = ['MIN_ROUNDS', 'Variant', 'figures', 'run_rounds', 'spread', 'waited_for']

MIN_ROUNDS = 3


@dataclass
class Variant:
    """One way to do something.

    Attributes:
        text: What it is, for people.
        run: Does it once, and waits for its device.
        baseline: The name of the way whose time is divided by this one's; None where there is none.
        result: What the last run of the first round returned.
        first: Milliseconds of the first round.
        rounds: Those of each further round.
    """

    text: str
    run: Callable[[], Any]
    baseline: str | None = None
    result: Any = None
    first: float = 0.0
    rounds: list[float] = field(default_factory=list)


def run_rounds(ways: Sequence[Variant], seconds: float, turn: float = 0) -> None:
    """Lets all ways take turns until the time is over, and at least three rounds after the first.

    Args:
        ways: Those to measure; their ``result``, ``first`` and ``rounds`` are filled in.
        seconds: Time to measure for.
        turn: Seconds that a way goes on for in a round, whose figure is the mean; once for 0.
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
    """What the last run returned, and the mean of their milliseconds."""
    start, count = time.perf_counter(), 0
    while True:
        result = run()
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return result, elapsed * 1000 / count


def waited_for(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The same, but it returns only when the device has done it."""

    def waiting() -> Any:
        result = run()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return result

    return waiting


def spread(way: Variant) -> dict[str, Any]:
    """A way's ``median_ms``, ``quartiles_ms`` (two), ``min_ms``, ``max_ms``, ``rounds_ms`` and ``first_ms``."""
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
    """Each way's ``text``, ``baseline``, ``ratio`` (its baseline's median to its own), and :func:`spread`."""
    found = {name: {'text': way.text, 'baseline': way.baseline} | spread(way) for name, way in ways.items()}
    for way in found.values():
        way['ratio'] = found[way['baseline']]['median_ms'] / way['median_ms']
    return found
