"""Warnings about slow data and unbalanced discriminators."""

import pytest

from dblr_plugin.training.monitors import DataMonitor, DiscriminatorMonitor

DATASET = {'num_worker_per_gpu': 0, 'dataroot_lq': 'datasets/DVD/train/lq'}


def watch(dataset: dict, waiting: float, working: float, pauses: bool = False) -> None:
    """Simulates 12 iterations; ``waiting`` and ``working`` are in seconds per iteration."""
    now = 0.0
    watched = DataMonitor(dataset, window=5, clock=lambda: now)
    for _ in range(12):
        if pauses:
            watched.pause()
        now += waiting
        watched.batch_arrived()
        now += working
        watched.step_done()


def test_waiting_for_data_is_reported_once_with_advice(caplog):
    watch(DATASET, waiting=0.01, working=0.002)
    assert caplog.text.count('waits for its data') == 1
    assert 'raise num_worker_per_gpu (it is 0' in caplog.text
    assert '--tiles' in caplog.text and 'y_only' in caplog.text


def test_advice_leaves_out_what_is_already_set(caplog):
    done = {'num_worker_per_gpu': 10_000, 'persistent_workers': True, 'y_only': True, 'dataroot_lq': 'a.tiles.lmdb'}
    watch(done, waiting=0.01, working=0.001)
    assert 'at its limit' in caplog.text and 'num_worker_per_gpu' not in caplog.text


def test_fast_data_and_pauses_are_not_reported(caplog):
    watch(DATASET, waiting=0.001, working=0.02)
    watch(DATASET, waiting=0.02, working=0.005, pauses=True)  # validating, saving
    assert not caplog.text


@pytest.mark.parametrize(('real', 'fake', 'message'), [
    (0.999, 0.001, 'has won'), (0.5, 0.5, 'has collapsed'), (0.4, 0.6, 'has collapsed'), (0.8, 0.3, None),
])  # fmt: skip
def test_won_or_collapsed_discriminator_is_reported_once(caplog, real, fake, message):
    watched = DiscriminatorMonitor()
    for _ in range(199):
        watched.record(real, fake)
    assert not caplog.text
    for _ in range(1000):
        watched.record(real, fake)
        watched.record(float('nan'), fake)
    assert caplog.text.count(f'The discriminator {message}') == (message is not None)


def test_discriminator_is_reported_again_after_recovering(caplog):
    watched = DiscriminatorMonitor()
    for _ in range(2):
        for _ in range(2000):
            watched.record(1.0, 0.0)
        for _ in range(2000):
            watched.record(0.7, 0.3)
    assert caplog.text.count('has won') == 2
