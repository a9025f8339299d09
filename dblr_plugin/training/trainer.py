"""Replaces parts of BasicSR's ``train_pipeline``: sampler, loader, resuming, signals."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from basicsr.data import build_dataloader
from basicsr.models import build_model
from torch.utils.data import DataLoader, Dataset

from dblr_plugin.data.train_sampler import TrainSampler
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.training import interrupts
from dblr_plugin.training.resume import load_resume_state

__all__ = ['patch_trainer']


def patch_trainer(trainer: ModuleType, opt: dict, check: Callable[[VideoDeblurTestDataset], None]) -> None:
    """Puts our parts in place of BasicSR's in a module that holds ``train_pipeline``, for a run with these options.

    Args:
        trainer: The module.
        opt: The options.
        check: Called with each data set for validation, to refuse it before training.
    """
    vars(trainer).update(
        load_resume_state=load_resume_state,
        # the trainer makes its sampler of four arguments; resuming needs the options too
        EnlargedSampler=functools.partial(_build_sampler, opt=opt),
        build_dataloader=functools.partial(_build_dataloader, check=check),
        build_model=_build_model,
    )


def _build_sampler(dataset: Dataset, num_replicas: int, rank: int, ratio: int, *, opt: dict) -> TrainSampler:
    sampler = TrainSampler(
        dataset,
        num_replicas,
        rank,
        ratio,
        batch_size=opt['datasets']['train']['batch_size_per_gpu'],
        seed=opt['manual_seed'],
        resume_iter=opt.get('resume_iter', 0),
        total_iter=int(opt['train']['total_iter']),
    )
    opt['iters_per_epoch'] = sampler.iters_per_epoch  # for what knows iterations alone
    return sampler


def _build_dataloader(
    dataset: Dataset, dataset_opt: dict, *, check: Callable[[VideoDeblurTestDataset], None], **kwargs: Any
) -> DataLoader:
    """BasicSR's, with a time limit, and workers that outlive Ctrl-C."""
    if isinstance(dataset, VideoDeblurTestDataset):
        check(dataset)
    loader = build_dataloader(dataset, dataset_opt, **kwargs)
    if loader.num_workers:
        loader.timeout = dataset_opt.get('timeout', 600)
        loader.worker_init_fn = functools.partial(_start_worker, loader.worker_init_fn)
    return loader


def _start_worker(worker_init_fn: Any, worker_id: int) -> None:
    interrupts.ignore_in_worker()
    worker_init_fn(worker_id)


def _build_model(opt: dict) -> Any:
    """BasicSR's; what comes next is training, which can save before it stops."""
    model = build_model(opt)
    interrupts.watch()
    return model
