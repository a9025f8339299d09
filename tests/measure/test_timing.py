"""Methods take turns; times are not judged but for waits that are known."""

import time
from functools import partial

import pytest
import torch

from dblr_plugin.archs import BlurryInput, DBLRNet
from dblr_plugin.measure import timing
from dblr_plugin.measure.timing import MIN_ROUNDS, Method, measure
from dblr_plugin.restore.video_restorer import VideoRestorer

CPU = torch.device('cpu')

calls: list[tuple[str, tuple[int, ...]]] = []


def make_waiting(name: str, seconds: float):
    def forward(window):
        assert not torch.is_grad_enabled()
        calls.append((name, tuple(window.shape)))
        time.sleep(seconds)
        return window[:, 2]

    return forward


def make_restorer():
    options = {'type': 'DBLRNet', 'num_in_ch': 1, 'num_feat': 16, 'num_block': 1}
    return VideoRestorer(DBLRNet(num_feat=16, num_block=1), options, 'cpu', backend='torch', precision='fp32')


@pytest.fixture
def without_memory(monkeypatch):
    monkeypatch.setattr(timing, 'peak_memory', lambda *arguments: None)


@pytest.mark.usefixtures('without_memory')
class TestRounds:
    def test_methods_take_turns(self):
        calls.clear()
        methods = {
            'slow': Method(partial(make_waiting, 'slow', 0.02), (5, 1)),
            'fast': Method(partial(make_waiting, 'fast', 0.004)),
        }
        report = measure(methods, CPU, (48, 32), seconds=0)
        assert [name for name, _ in calls] == ['slow', 'fast'] * (1 + MIN_ROUNDS)
        assert dict(calls) == {'slow': (1, 5, 1, 32, 48), 'fast': (1, 5, 3, 32, 48)}
        assert report['size'] == [32, 48] and report['device'] == 'cpu'
        for name, least in (('slow', 20), ('fast', 4)):
            found = report['methods'][name]
            assert len(found['rounds_ms']) == MIN_ROUNDS and found['first_ms'] >= least
            lower, upper = found['quartiles_ms']
            assert least <= found['min_ms'] <= lower <= found['median_ms'] <= upper <= found['max_ms']
            assert found['median_ms'] == sorted(found['rounds_ms'])[1]

    def test_restorers_and_networks(self):
        methods = {'video': Method(make_restorer), 'blurry': Method(BlurryInput)}
        report = measure(methods, CPU, (64, 48), seconds=0)
        assert list(report['methods']) == ['video', 'blurry']
        assert report['methods']['video']['median_ms'] > report['methods']['blurry']['median_ms']


def test_a_restorer_restores_one_frame_a_turn():
    turn = timing._frame_maker(Method(make_restorer), (40, 24), CPU)
    assert [turn().shape for _ in range(3)] == [(24, 40, 3)] * 3
