"""Methods take turns and their rounds are summarised; no times are checked except known waits."""

import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dblr_plugin.archs import DBLRNet
from dblr_plugin.benchmark import timing
from dblr_plugin.benchmark.timing import MIN_ROUNDS, Variant, figures, measure, peak_memory, run_rounds
from dblr_plugin.restore.video_restorer import VideoRestorer

CPU = torch.device('cpu')
BLOCK = 100 * 2**20  # bytes


def test_variants_take_turns():
    calls = []
    ways = {name: Variant(name, lambda name=name: calls.append(name) or len(calls), 'a') for name in 'ab'}
    run_rounds([*ways.values()], seconds=0)
    assert calls == ['a', 'b'] * 4
    assert [(way.result, len(way.rounds), way.first > 0) for way in ways.values()] == [(1, 3, True), (2, 3, True)]


@pytest.fixture
def work(monkeypatch) -> Callable[[], int]:
    """A function that takes 0.25 s of simulated time and returns the number of earlier calls."""
    done = itertools.count(1)
    now = [0.0]
    monkeypatch.setattr(time, 'perf_counter', lambda: now[0])
    monkeypatch.setattr(timing, 'MIN_ROUNDS', 1)

    def work() -> int:
        number = next(done)
        now[0] = number / 4
        return number - 1

    return work


def test_rounds_continue_until_the_time_is_over(work):
    way = Variant('works', work)
    run_rounds([way], seconds=2)
    assert way.rounds == [250] * 7  # the first round is not counted


def test_turn_of_many_runs_has_their_mean(work):
    way = Variant('works', work)
    run_rounds([way], seconds=0, turn=1)
    assert way.rounds == [250] and way.result == 3 and work() == 8  # two turns of four


def test_figures_are_median_quartiles_and_ratio():
    ways = {'slow': Variant('slowly', int, 'slow', None, 9.0, [4.0, 2.0, 8.0]), 'fast': Variant('fast', int, 'slow')}
    ways['fast'].rounds = [1.0]
    found = figures(ways)
    slow = found['slow']
    assert [slow[key] for key in ('median_ms', 'min_ms', 'max_ms', 'first_ms')] == [4, 2, 8, 9]
    assert slow['quartiles_ms'] == pytest.approx(np.quantile([4, 2, 8], (0.25, 0.75)))
    assert (slow['ratio'], found['fast']['ratio'], slow['text']) == (1, 4, 'slowly')


class Waiting(nn.Module):
    """Returns the middle frame after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return x[:, 2]


def restorer(net: nn.Module) -> VideoRestorer:
    return VideoRestorer(net, {'type': 'DBLRNet'}, 'cpu', backend='torch', precision='fp32')


def test_measured_times_are_at_least_the_known_waits(monkeypatch):
    monkeypatch.setattr(timing, 'peak_memory', lambda *arguments: None)
    methods = {'slow': partial(restorer, Waiting(0.02)), 'fast': partial(restorer, Waiting(0.004))}
    report = measure(methods, CPU, (48, 32), seconds=0)
    assert report['size'] == [32, 48] and report['device'] == 'cpu' and list(report['methods']) == ['slow', 'fast']
    for name, least in (('slow', 20), ('fast', 4)):
        found = report['methods'][name]
        assert len(found['rounds_ms']) == MIN_ROUNDS and found['first_ms'] >= least
        lower, upper = found['quartiles_ms']
        assert least <= found['min_ms'] <= lower <= found['median_ms'] <= upper <= found['max_ms']
        assert found['median_ms'] == sorted(found['rounds_ms'])[1]


def test_each_turn_restores_one_frame():
    turn = timing._frame_maker(partial(restorer, DBLRNet(num_feat=16, num_block=1)), (40, 24))
    assert [turn().shape for _ in range(3)] == [(24, 40, 3)] * 3


def make_hungry():
    """Allocates a block permanently and another one in each run."""
    weights = torch.ones(BLOCK // 4)
    return lambda: (weights + 1)[0]


@pytest.mark.slow
def test_peak_memory_is_measured_in_a_new_process():
    hoard = torch.ones(BLOCK)  # 400 MiB of this process, which must not count  # noqa: F841
    peak = peak_memory(make_hungry, torch.device('cpu'))
    assert peak is None or 2 * BLOCK <= peak < 3 * BLOCK
