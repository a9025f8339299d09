"""Replaces parts of BasicSR's programs: sampler, loader, resuming and signals of its trainer; the log of both.

BasicSR logs the whole option tree and every layer of every network, hundreds of lines, in front of what matters, and
its programs end when TensorBoard's file cannot be written. Here everything is in the file and a summary on the screen,
and a failing file does not end the run.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from multiprocessing import get_start_method
from types import ModuleType
from typing import Any

from basicsr.data import build_dataloader
from basicsr.models import build_model
from basicsr.utils import logger as basicsr_logger
from torch.utils.data import DataLoader, Dataset

from dblr_plugin.data.train_sampler import TrainSampler
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.files import write_fault
from dblr_plugin.processes import fork_context
from dblr_plugin.training import interrupts
from dblr_plugin.training.checkpoint_folder import load_resume_state

__all__ = ['ForgivingWriter', 'patch_log', 'patch_trainer']


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
        if get_start_method() == 'spawn':  # BasicSR's choice where processes train together
            loader.multiprocessing_context = fork_context()
    return loader


def _start_worker(worker_init_fn: Any, worker_id: int) -> None:
    interrupts.ignore_in_worker()
    worker_init_fn(worker_id)


def _build_model(opt: dict) -> Any:
    """BasicSR's; what comes next is training, which can save before it stops."""
    model = build_model(opt)
    interrupts.watch()
    return model


# functions of BasicSR whose texts of many lines are options, versions and layers
_AT_LENGTH = ('train_pipeline', 'test_pipeline', 'print_network')


def patch_log(program: ModuleType) -> None:
    """Puts our logger, TensorBoard writer and estimate of time in place of BasicSR's in its trainer or tester."""
    vars(program)['get_root_logger'] = _get_root_logger
    if hasattr(program, 'init_tb_logger'):
        vars(program).update(init_tb_logger=_init_tb_logger, MessageLogger=_MessageLogger)


# ---------------------------------------------------------------------- log file and screen


def _get_root_logger(*args: Any, **kwargs: Any) -> logging.Logger:
    """BasicSR's logger; what is only for the file is kept from the screen, and the file may fail."""
    is_new = 'basicsr' not in basicsr_logger.initialized_logger
    logger = basicsr_logger.get_root_logger(*args, **kwargs)
    files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    if not (is_new and files):  # other processes have none
        return logger
    for handler in logger.handlers:
        if handler in files:
            handler.handleError = functools.partial(_report_once, logger, handler)
        else:
            handler.addFilter(_is_for_the_screen)
    logger.info('Log, with all options and networks: %s', files[0].baseFilename)
    return logger


def _is_for_the_screen(record: logging.LogRecord) -> bool:
    return record.funcName not in _AT_LENGTH or '\n' not in record.getMessage()


def _report_once(logger: logging.Logger, handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """Takes the place of a handler's ``handleError``, which prints a traceback for each line."""
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
    elif not getattr(handler, 'has_failed', False):
        vars(handler)['has_failed'] = True
        logger.error('%s. The run continues; its log is only shown here.', write_fault(handler.baseFilename, error))


# ---------------------------------------------------------------------- TensorBoard


class ForgivingWriter:
    """TensorBoard's ``SummaryWriter`` until its file cannot be written; from then on its methods do nothing.

    Args:
        log_dir: The run's folder of TensorBoard files.
    """

    def __init__(self, log_dir: str) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds, and not every run needs it

        self._log_dir = log_dir
        self._writer: Any = None
        self._writer = self._attempt(lambda: SummaryWriter(log_dir=log_dir))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            if self._writer is not None:
                return self._attempt(lambda: getattr(self._writer, name)(*args, **kwargs))
            return None

        return method

    def _attempt(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except OSError as error:
            self._writer = None
            fault = write_fault(error.filename or self._log_dir, error)
            basicsr_logger.get_root_logger().error(f'{fault}. Training continues without TensorBoard.')
            return None


@basicsr_logger.master_only
def _init_tb_logger(log_dir: str) -> ForgivingWriter:
    threading.excepthook = functools.partial(_report_thread, threading.excepthook)
    return ForgivingWriter(log_dir)


def _report_thread(otherwise: Callable[[Any], Any], failure: Any) -> None:
    """Keeps silent of TensorBoard's thread, whose error the writer's next call raises and is reported then."""
    of_tensorboard = type(failure.thread).__module__.startswith('tensorboard.')
    if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
        otherwise(failure)


# ---------------------------------------------------------------------- estimate of time


class _MessageLogger(basicsr_logger.MessageLogger):
    """BasicSR's, whose remaining time is one iteration short and so negative at the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_iters += 1
