"""Turns, rounds and memory; times are not judged but for waits that are known."""

import time
from functools import partial

import pytest
import torch

from dblr_plugin.archs import DBLRNet, MiddleFrame
from dblr_plugin.benchmark import timing
from dblr_plugin.benchmark.timing import Method, measure
from dblr_plugin.inference.video_restorer import VideoRestorer

CPU = torch.device('cpu')
BLOCK = 100 * 2**20  # bytes

calls: list[tuple[str, tuple[int, ...]]] = []


def make_waiting(name: str, seconds: float):
    def forward(window):
        assert not torch.is_grad_enabled()
        calls.append((name, tuple(window.shape)))
        time.sleep(seconds)
        return window[:, 2]

    return forward


def make_hungry():
    """Holds a block for good and takes another one for each frame."""
    weights = torch.ones(BLOCK // 4)

    def forward(window):
        return window[:, 2] + (weights + 1)[0]

    return forward


def make_restorer():
    options = {'type': 'DBLRNet', 'num_in_ch': 1, 'num_feat': 16, 'num_block': 1}
    return VideoRestorer(DBLRNet(num_feat=16, num_block=1), options, 'cpu', 'torch', 'fp32')


@pytest.fixture
def without_memory(monkeypatch):
    monkeypatch.setattr(timing, '_peak_in_process', lambda *arguments: None)


@pytest.mark.usefixtures('without_memory')
class TestRounds:
    def test_methods_take_turns(self):
        calls.clear()
        methods = {
            'slow': Method(partial(make_waiting, 'slow', 0.02), (5, 1)),
            'fast': Method(partial(make_waiting, 'fast', 0.004)),
        }
        report = measure(methods, CPU, (48, 32), seconds=0)
        assert [name for name, _ in calls] == ['slow', 'fast'] * (1 + timing.MIN_ROUNDS)
        assert dict(calls) == {'slow': (1, 5, 1, 32, 48), 'fast': (1, 5, 3, 32, 48)}
        assert report['size'] == [32, 48] and report['device'] == 'cpu'
        for name, least in (('slow', 20), ('fast', 4)):
            found = report['methods'][name]
            assert len(found['rounds_ms']) == timing.MIN_ROUNDS and found['first_ms'] >= least
            lower, upper = found['quartiles_ms']
            assert least <= found['min_ms'] <= lower <= found['median_ms'] <= upper <= found['max_ms']
            assert found['median_ms'] == sorted(found['rounds_ms'])[1]

    def test_goes_on_until_the_time_is_over(self):
        report = measure({'a': Method(partial(make_waiting, 'a', 0.01))}, CPU, (16, 16), seconds=0.4)
        assert timing.MIN_ROUNDS < len(report['methods']['a']['rounds_ms']) <= 40

    def test_restorers_and_networks(self):
        methods = {'video': Method(make_restorer), 'blurry': Method(MiddleFrame)}
        report = measure(methods, CPU, (64, 48), seconds=0)
        assert list(report['methods']) == ['video', 'blurry']
        assert report['methods']['video']['median_ms'] > report['methods']['blurry']['median_ms']


def test_a_restorer_restores_one_frame_a_turn():
    turn = timing._turn(Method(make_restorer), (40, 24), CPU)
    assert [turn().shape for _ in range(3)] == [(24, 40, 3)] * 3


@pytest.mark.slow
def test_memory_is_of_a_fresh_process():
    hoard = torch.ones(BLOCK)  # this process's own memory, 400 MiB, must not count  # noqa: F841
    peak = timing._peak_in_process(Method(make_hungry), (16, 16), CPU)
    assert peak is None or 2 * BLOCK <= peak < 3 * BLOCK
