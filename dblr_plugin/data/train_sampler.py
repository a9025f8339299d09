"""Training sample order: resumable, and the same for any number of processes and workers."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator

import torch
from basicsr.data.data_sampler import EnlargedSampler
from torch.utils.data import Dataset

from dblr_plugin.errors import DBLRError

__all__ = ['SampleIndex', 'TrainSampler', 'rng_of']


class SampleIndex(int):
    """Index that carries the seed for its sample's augmentation; other datasets see a plain index."""

    seed: int

    def __new__(cls, index: int, seed: int) -> SampleIndex:
        """Creates an index; pickling, which sends it to a loader's worker, keeps the seed."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple:
        return SampleIndex, (int(self), self.seed)


def rng_of(index: int) -> random.Random:
    """Returns the random numbers of a sample: the same each time with a :class:`SampleIndex`, otherwise new ones."""
    # otherwise from torch: BasicSR's worker_init_fn gives `random` the same seed in every epoch
    return random.Random(index.seed if isinstance(index, SampleIndex) else int(torch.randint(2**62, ())))


class TrainSampler(EnlargedSampler):
    """Replaces BasicSR's ``EnlargedSampler`` in ``train_pipeline``.

    - An epoch consists of full batches. BasicSR counts a last, partial batch as an iteration, but its loader drops it,
      so with a small dataset training ends before ``total_iter``, or does nothing at all. The last epoch ends at
      ``total_iter``.
    - Order and augmentation depend only on ``manual_seed``, the epoch and the position in it. The global batches are
      the same for any number of processes and workers.
    - A resumed run continues after the last sample it was trained on; BasicSR restarts the epoch.

    Args:
        dataset: The training set.
        num_replicas: Number of processes.
        rank: Rank of this process.
        ratio: ``dataset_enlarge_ratio``.
        batch_size: Samples per batch and process.
        seed: ``manual_seed``.
        resume_iter: Last iteration before the run was stopped.
        total_iter: Last iteration of the training; unlimited by default.

    Raises:
        DBLRError: If the data set has no samples, or no length.
    """

    num_samples: int
    total_size: int

    def __init__(
        self,
        dataset: Dataset,
        num_replicas: int,
        rank: int,
        ratio: int = 1,
        *,
        batch_size: int,
        seed: int,
        resume_iter: int = 0,
        total_iter: int = sys.maxsize,
    ) -> None:
        if not hasattr(dataset, '__len__'):  # IterableDataset
            raise DBLRError(
                f'the training set, {type(dataset).__name__}, has no __len__ (number of samples), which the order of '
                'the samples needs; add it, and __getitem__'
            )
        super().__init__(dataset, num_replicas, rank, ratio)
        if not self.num_samples:
            raise DBLRError(f'the training set, {type(dataset).__name__}, has no samples; check its folders')
        self.batch_size = batch_size
        self.iters_per_epoch = math.ceil(self.num_samples / self.batch_size)
        self.num_samples = self.iters_per_epoch * self.batch_size
        self.total_size = self.num_samples * num_replicas
        self.seed = seed
        self.resume_iter = resume_iter
        self.total_iter = total_iter

    def __iter__(self) -> Iterator[SampleIndex]:
        """Yields this process's share of the epoch, from where a resumed run stopped to ``total_iter`` at most."""
        # torch's generator uses 32 bits of its seed
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**32)
        order = torch.randperm(self.total_size, generator=generator).tolist()
        seeds = torch.randint(2**62, (self.total_size,), generator=generator).tolist()
        first, last = (max(i - self.epoch * self.iters_per_epoch, 0) for i in (self.resume_iter, self.total_iter))
        share = range(self.rank, self.total_size, self.num_replicas)
        for place in share[first * self.batch_size : last * self.batch_size]:
            yield SampleIndex(order[place] % len(self.dataset), seeds[place])
