"""Training that goes on where it was stopped."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from mmengine.runner import IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from dblr_plugin.mmengine.registry import LOOPS, register
from dblr_plugin.training.objectives import seed_iteration

__all__ = ['ResumableTrainLoop']


@register(LOOPS)
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop over iterations, with our sampler.

    MMEngine's own reads all batches again that a resumed run has been trained on. This one begins behind them, so that
    the run is the one that was not stopped. Whatever is random in networks and losses follows from the iteration.

    Args:
        runner: The Runner.
        dataloader: ``train_dataloader``; it needs no sampler.
        kwargs: Those of MMEngine's ``IterBasedTrainLoop``.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | Mapping[str, Any], **kwargs: Any) -> None:
        if isinstance(dataloader, Mapping):
            sampler = {'type': 'dblr.ResumableSampler', **dataloader.get('sampler', {})}
            dataloader = {**dataloader, 'sampler': {**sampler, 'batch_size': dataloader['batch_size']}}
        super().__init__(runner, dataloader, **kwargs)

    def run(self) -> nn.Module:
        """Trains to the last iteration."""
        self.dataloader.sampler.resume(self._iter, self.runner.seed)
        # MMEngine takes one batch for each iteration that has been; these cost nothing
        self.dataloader_iterator = itertools.chain(itertools.repeat(None, self._iter), iter(self.dataloader))
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """One iteration."""
        seed_iteration(self.runner.seed, self._iter + 1, self.runner.rank, self.runner.world_size)
        super().run_iter(data_batch)
