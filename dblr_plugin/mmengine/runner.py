"""Parts of a Runner: a loop that resumes, hooks, and an optimiser for each network of a model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.comparison_images import ComparisonImages
from dblr_plugin.mmengine.data import restored_frame
from dblr_plugin.mmengine.registry import HOOKS, LOOPS, OPTIM_WRAPPER_CONSTRUCTORS, register
from dblr_plugin.training.objectives import seed_iteration

__all__ = ['ComparisonImagesHook', 'MultiOptimWrapperConstructor', 'ResumableTrainLoop', 'StopAtInvalidLossHook']


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


_TENSORBOARD = 'TensorboardVisBackend'


@register(HOOKS)
class ComparisonImagesHook(Hook):
    """Input, output and truth side by side after each validation: in the run's folder, and in TensorBoard if it is on.

    Args:
        clips: How many clips to show.
        side: Largest side of the square that is cut from the middle of a frame, in pixels.
    """

    def __init__(self, clips: int = 4, side: int = 256) -> None:
        self.clips = clips
        self.side = side

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts a validation."""
        self.images = ComparisonImages(Path(runner.log_dir) / 'vis_data', self.clips, self.side)
        self.take = self.images.begin(runner.val_dataloader.dataset)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[dict] | None = None
    ) -> None:
        """Takes restored frames, if they are to be shown."""
        for sample in outputs or ():
            self.take(restored_frame(sample))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes the images."""
        backends = runner.visualizer._vis_backends
        self.images.finish(runner.iter, backends[_TENSORBOARD].experiment if _TENSORBOARD in backends else None)


@register(HOOKS)
class StopAtInvalidLossHook(Hook):
    """Ends a run at the first loss that is not finite, before its weights are saved.

    BasicSR's trainer skips such a step; MMEngine's optimisers have taken it by then, unless they scale the loss (fp16).
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Looks at the log of an iteration; raises DBLRError, with the batch's samples, for what is not finite."""
        invalid = [name for name, value in (outputs or {}).items() if not torch.isfinite(torch.as_tensor(value)).all()]
        if invalid:
            raise DBLRError(
                f'iteration {runner.iter + 1}: {", ".join(invalid)} not finite, with samples '
                f'{", ".join(data_batch.get("key", ()))}; look at them, lower the learning rate, or clip gradients '
                '(optim_wrapper.clip_grad); --resume goes on from the last checkpoint'
            )


@register(OPTIM_WRAPPER_CONSTRUCTORS)
class MultiOptimWrapperConstructor:
    """Builds ``optim_wrapper`` of a model of several networks; MMagic has one of the same name and form.

    Args:
        optim_wrapper_cfg: Name of the network in the model -> its ``optim_wrapper``.
        paramwise_cfg: Not used: each network's ``optim_wrapper`` has its own.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: object = None) -> None:
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """One wrapper for each network."""
        bare: Any = model.module if is_model_wrapper(model) else model
        return OptimWrapperDict(
            **{name: build_optim_wrapper(getattr(bare, name), config) for name, config in self.configs.items()}
        )
