"""Ways to do the same work, timed in turns.

All ways take turns in every round, so that whatever else the machine does strikes all of them. The first round warms
up and is not counted. The figure of a way is the median over rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ['MIN_ROUNDS', 'Way', 'figures', 'run_rounds']

MIN_ROUNDS = 3


@dataclass
class Way:
    """One way to do something.

    Attributes:
        text: What it is, for people.
        baseline: The name of the way whose time is divided by this one's.
        run: Does it once.
        rounds: Milliseconds of each round.
    """

    text: str
    baseline: str
    run: Callable[[], object]
    rounds: list[float] = field(default_factory=list)


def run_rounds(ways: dict[str, Way], seconds: float) -> None:
    """Lets all ways take turns until the time is over, and at least three rounds."""
    start, counted = time.perf_counter(), -1
    while counted < MIN_ROUNDS or time.perf_counter() - start < seconds:
        for way in ways.values():
            before = time.perf_counter()
            way.run()
            way.rounds.append((time.perf_counter() - before) * 1000)
        counted += 1
    for way in ways.values():
        del way.rounds[0]


def figures(ways: dict[str, Way]) -> dict[str, dict]:
    """Each way's ``text``, ``baseline``, ``median_ms``, ``min_ms``, ``max_ms``, ``rounds_ms`` and ``ratio``."""
    medians = {name: statistics.median(way.rounds) for name, way in ways.items()}
    return {
        name: {
            'text': way.text,
            'baseline': way.baseline,
            'median_ms': medians[name],
            'min_ms': min(way.rounds),
            'max_ms': max(way.rounds),
            'rounds_ms': way.rounds,
            'ratio': medians[way.baseline] / medians[name],
        }
        for name, way in ways.items()
    }
