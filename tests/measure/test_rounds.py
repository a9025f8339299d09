"""Turns, what is kept of them, and the figures that are made of it."""

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest

from dblr_plugin.measure import timing
from dblr_plugin.measure.timing import Variant, figures, run_rounds


@pytest.fixture(autouse=True)
def _single_round(monkeypatch):
    monkeypatch.setattr(timing, 'MIN_ROUNDS', 1)


def test_ways_take_turns(monkeypatch):
    monkeypatch.setattr(timing, 'MIN_ROUNDS', 3)
    calls = []
    ways = {name: Variant(name, lambda name=name: calls.append(name) or len(calls), 'a') for name in 'ab'}
    run_rounds([*ways.values()], seconds=0)
    assert calls == ['a', 'b'] * 4
    assert [(way.result, len(way.rounds), way.first > 0) for way in ways.values()] == [(1, 3, True), (2, 3, True)]


@pytest.fixture
def work(monkeypatch) -> Callable[[], int]:
    """Takes a quarter of a second by a clock of its own; returns how often it has been done before."""
    done = itertools.count(1)
    now = [0.0]
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])

    def work() -> int:
        number = next(done)
        now[0] = number / 4
        return number - 1

    return work


def test_goes_on_until_the_time_is_over(work):
    way = Variant('works', work)
    run_rounds([way], seconds=2)
    assert way.rounds == [250] * 7  # and the first, which is not counted


def test_a_turn_of_many_runs_has_their_mean(work):
    way = Variant('works', work)
    run_rounds([way], seconds=0, turn=1)
    assert way.rounds == [250] and way.result == 3 and work() == 8  # two turns of four


def test_figures():
    ways = {'slow': Variant('slowly', int, 'slow', None, 9.0, [4.0, 2.0, 8.0]), 'fast': Variant('fast', int, 'slow')}
    ways['fast'].rounds = [1.0]
    found = figures(ways)
    slow = found['slow']
    assert [slow[key] for key in ('median_ms', 'min_ms', 'max_ms', 'first_ms')] == [4, 2, 8, 9]
    assert slow['quartiles_ms'] == pytest.approx(np.quantile([4, 2, 8], (0.25, 0.75)))
    assert (slow['ratio'], found['fast']['ratio'], slow['text']) == (1, 4, 'slowly')
