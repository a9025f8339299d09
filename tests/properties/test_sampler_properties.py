"""The order of samples in training, for any data set, batch size, number of processes and resume iteration."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from dblr_plugin.data.train_sampler import TrainSampler


class OfLength(Dataset):
    """A data set that only has a length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


Batch = list[tuple[int, int]]


def run(rank: int, processes: int, batch: int, length: int, ratio: int, total: int, seed: int, resumed_at: int = 0):
    """Returns the (index, seed) pairs of each batch of one process, in BasicSR's epoch loop, and the epoch length."""
    settings = {'batch_size': batch, 'seed': seed, 'resume_iter': resumed_at, 'total_iter': total}
    sampler = TrainSampler(OfLength(length), processes, rank, ratio, **settings)
    batches: list[Batch] = []
    for epoch in range(resumed_at // sampler.iters_per_epoch, total // sampler.iters_per_epoch + 2):
        sampler.set_epoch(epoch)
        items = [(int(index), index.seed) for index in sampler]
        assert len(items) % batch == 0 and len(items) <= len(sampler)
        batches += [items[start : start + batch] for start in range(0, len(items), batch)]
    return batches, sampler.iters_per_epoch


@settings(max_examples=300)
@given(
    length=st.integers(1, 30),
    batch=st.integers(1, 5),
    processes=st.integers(1, 4),
    ratio=st.integers(1, 4),
    total=st.integers(1, 25),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
@pytest.mark.slow
def test_sampling_order_of_training(length, batch, processes, ratio, total, seed, data):
    alone, iters_per_epoch = run(0, 1, batch * processes, length, ratio, total, seed)
    assert len(alone) == total
    shares = [run(rank, processes, batch, length, ratio, total, seed)[0] for rank in range(processes)]
    for together, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert Counter(together) == Counter(item for part in parts for item in part)
    resumed_at = data.draw(st.integers(0, total))
    for rank, share in enumerate(shares):
        assert run(rank, processes, batch, length, ratio, total, seed, resumed_at)[0] == share[resumed_at:]
    for start in range(0, total - iters_per_epoch + 1, iters_per_epoch):
        used = Counter(index for items in alone[start : start + iters_per_epoch] for index, _ in items)
        assert set(used) == set(range(length)) and max(used.values()) - min(used.values()) <= 1
        assert sum(used.values()) >= length * ratio
    seeds = [sample_seed for items in alone for _, sample_seed in items]
    assert len(set(seeds)) == len(seeds)
