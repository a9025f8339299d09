"""The order of training samples, which depends on seed and iteration only."""

import pickle

import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dblr_plugin.data.train_sampler import SampleIndex, TrainSampler
from dblr_plugin.errors import DBLRError


class Numbers(Dataset):
    """Returns each requested index and its seed."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[int, int]:
        assert isinstance(index, SampleIndex)
        return int(index), index.seed


def samplers(length: int, batch: int, processes: int, ratio: int = 1, **settings) -> list:
    settings = {'batch_size': batch, 'seed': 0, 'total_iter': 10**6, **settings}
    return [TrainSampler(Numbers(length), processes, rank, ratio, **settings) for rank in range(processes)]


def batches(sampler: TrainSampler, epoch: int) -> list[set]:
    """Returns the (index, seed) pairs of each batch of an epoch."""
    sampler.set_epoch(epoch)
    items = [(int(i), i.seed) for i in sampler]
    size = sampler.batch_size
    return [set(items[i : i + size]) for i in range(0, len(items), size)]


def test_empty_data_set_is_refused():
    """BasicSR would divide by its number of iterations."""
    with pytest.raises(DBLRError, match='the training set, Numbers, has no samples'):
        samplers(0, 2, 1)


def test_data_set_without_a_length_is_refused():
    class Endless(IterableDataset):
        def __iter__(self):
            yield {}

    with pytest.raises(DBLRError, match='the training set, Endless, has no __len__'):
        TrainSampler(Endless(), 1, 0, batch_size=1, seed=0)


@pytest.mark.parametrize('length', [3, 16, 17, 50])
@pytest.mark.parametrize('ratio', [1, 3])
def test_global_batches_do_not_depend_on_the_number_of_processes(length, ratio):
    (one,) = samplers(length, 4, 1, ratio)
    two = samplers(length, 2, 2, ratio)
    for epoch in (0, 1):
        merged = [a | b for a, b in zip(*(batches(s, epoch) for s in two), strict=True)]
        assert merged == batches(one, epoch)


@pytest.mark.parametrize('length', [1, 3, 4, 9])
def test_epoch_length_equals_basicsrs(length):
    (sampler,) = samplers(length, 4, 1)
    loader = DataLoader(Numbers(length), batch_size=4, sampler=sampler, drop_last=True)
    assert len(list(loader)) == len(loader) == -(-length // 4) == sampler.iters_per_epoch


def test_epoch_is_a_random_permutation():
    (sampler,) = samplers(16, 4, 1)
    indices = [int(i) for i in sampler]
    assert sorted(indices) == list(range(16))
    assert indices != sorted(indices)


def test_epochs_and_seeds_differ():
    (sampler,), (other,) = samplers(16, 4, 1), samplers(16, 4, 1, seed=1)
    first, second = batches(sampler, 0), batches(sampler, 1)
    assert first != second and batches(other, 0) != first
    assert len({seed for batch in first + second for _, seed in batch}) == 32


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize('stopped_at', [0, 1, 4, 7, 8, 11])
def test_resumed_run_continues_with_the_remaining_batches(processes, stopped_at):
    whole = [s for s in samplers(32, 4, processes, total_iter=15)]
    resumed = samplers(32, 4, processes, total_iter=15, resume_iter=stopped_at)
    for before, after in zip(whole, resumed, strict=True):
        expected = [b for epoch in range(5) for b in batches(before, epoch)]
        assert len(expected) == 15  # not one sample beyond total_iter
        assert [b for epoch in range(5) for b in batches(after, epoch)] == expected[stopped_at:]


def test_seed_survives_pickling():
    index = pickle.loads(pickle.dumps(SampleIndex(3, 7)))
    assert (index, index.seed) == (3, 7)
