"""Comparison images after validation, and a stop when the loss is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.comparison_images import ComparisonImages
from dblr_plugin.mmengine.data import restored_frame
from dblr_plugin.mmengine.registry import HOOKS, register

__all__ = ['ComparisonImagesHook', 'StopAtInvalidLossHook']

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
