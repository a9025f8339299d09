"""Turns, what is kept of them, and the figures that are made of it."""

import time

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


def test_goes_on_until_the_time_is_over():
    way = Variant('waits', lambda: time.sleep(0.01))
    run_rounds([way], seconds=0.2)
    assert 1 < len(way.rounds) <= 20 and min(way.rounds) >= 10


def test_a_turn_of_many_runs_has_their_mean():
    counts = iter(range(1000))
    way = Variant('waits', lambda: time.sleep(0.01) or next(counts))
    run_rounds([way], seconds=0, turn=0.05)
    # two turns, of which the first is not counted
    assert len(way.rounds) == 1 and way.rounds[0] >= 10 and way.result <= 4 and next(counts) > way.result


def test_figures():
    ways = {'slow': Variant('slowly', int, 'slow', None, 9.0, [4.0, 2.0, 8.0]), 'fast': Variant('fast', int, 'slow')}
    ways['fast'].rounds = [1.0]
    found = figures(ways)
    slow = found['slow']
    assert [slow[key] for key in ('median_ms', 'min_ms', 'max_ms', 'first_ms')] == [4, 2, 8, 9]
    assert slow['quartiles_ms'] == pytest.approx(np.quantile([4, 2, 8], (0.25, 0.75)))
    assert (slow['ratio'], found['fast']['ratio'], slow['text']) == (1, 4, 'slowly')
