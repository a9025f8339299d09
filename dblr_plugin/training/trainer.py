"""Replaces parts of BasicSR's programs: sampler, loader, resuming, folders and signals in its trainer; logging in both.

BasicSR logs the whole option tree and every layer of every network, hundreds of lines, before anything important, and
its programs end if TensorBoard's file cannot be written. Here the file gets everything and the screen a summary, and a
run survives files that cannot be written.
"""

from __future__ import annotations

import functools
import logging
import secrets
import sys
import threading
from collections.abc import Callable
from multiprocessing import get_start_method
from pathlib import Path
from types import ModuleType
from typing import Any

from basicsr.data import build_dataloader
from basicsr.models import build_model
from basicsr.utils import logger as basicsr_logger
from basicsr.utils import make_exp_dirs
from torch.utils.data import DataLoader, Dataset

from dblr_plugin.data.train_sampler import TrainSampler
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError, first_line
from dblr_plugin.files import hold_folder, write_fault
from dblr_plugin.processes import fork_context
from dblr_plugin.training import interrupts
from dblr_plugin.training.checkpoint_folder import load_resume_state

__all__ = ['ForgivingWriter', 'patch_log', 'patch_test', 'patch_trainer']


def patch_trainer(trainer: ModuleType, opt: dict, check: Callable[[VideoDeblurTestDataset], None]) -> None:
    """Replaces BasicSR's parts with ours in the module that defines ``train_pipeline``, for a run with these options.

    ``check`` is called with each validation set, to reject it before training.
    """
    vars(trainer).update(
        load_resume_state=_load_resume_state,
        make_exp_dirs=_make_exp_dirs,
        # the trainer passes four arguments to its sampler; resuming also needs the options
        EnlargedSampler=functools.partial(_build_sampler, opt=opt),
        build_dataloader=functools.partial(_build_dataloader, check=check),
        build_model=_build_model,
        init_tb_logger=functools.partial(_init_tb_logger, opt=opt),
        init_wandb_logger=_init_wandb_logger,
    )


def patch_test(test: ModuleType) -> None:
    """Makes the module that defines ``test_pipeline`` refuse a folder that another test still writes to."""
    vars(test).update(make_exp_dirs=_make_exp_dirs)


def _load_resume_state(opt: dict) -> dict | None:
    _hold(opt)
    return load_resume_state(opt)


def _make_exp_dirs(opt: dict) -> None:
    _refuse_own_weights(opt)
    _hold(opt)  # BasicSR archives an older folder, and a run that still writes to it would go on in the new one
    make_exp_dirs(opt)
    _hold(opt)


def _refuse_own_weights(opt: dict) -> None:
    """Rejects a run that starts from weights in the folder that it would archive."""
    folder = Path(_folder(opt)).resolve()
    for key, path in opt['path'].items():
        if key.startswith('pretrain_network_') and path and folder in Path(path).resolve().parents:
            raise DBLRError(
                f'path.{key}: {path} is of an earlier run with this name, whose folder would be renamed; give another '
                'name (--set name=...)'
            )


def _hold(opt: dict) -> None:
    if opt['rank'] == 0:
        hold_folder(_folder(opt), 'give another name (--set name=...)')


def _folder(opt: dict) -> str:
    return opt['path'].get('experiments_root') or opt['path']['results_root']


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
    opt['iters_per_epoch'] = sampler.iters_per_epoch  # for code that only knows iterations
    return sampler


def _build_dataloader(
    dataset: Dataset, dataset_opt: dict, *, check: Callable[[VideoDeblurTestDataset], None], **kwargs: Any
) -> DataLoader:
    """Builds BasicSR's loader, with a timeout, and workers that survive Ctrl-C."""
    if isinstance(dataset, VideoDeblurTestDataset):
        check(dataset)
    loader = build_dataloader(dataset, dataset_opt, **kwargs)
    if loader.num_workers:
        loader.timeout = dataset_opt.get('timeout', 600)
        loader.worker_init_fn = functools.partial(_start_worker, loader.worker_init_fn)
        if get_start_method() == 'spawn':  # set by BasicSR for distributed training
            loader.multiprocessing_context = fork_context()
    return loader


def _start_worker(worker_init_fn: Any, worker_id: int) -> None:
    interrupts.ignore_in_worker()
    worker_init_fn(worker_id)


def _build_model(opt: dict) -> Any:
    """Builds BasicSR's model, then watches for signals, as the training that follows can save before it stops."""
    model = build_model(opt)
    interrupts.watch()
    return model


# BasicSR functions that log options, versions and layers as multi-line messages
_AT_LENGTH = ('train_pipeline', 'test_pipeline', 'print_network')


def patch_log(program: ModuleType) -> None:
    """Replaces BasicSR's logger and time estimate with ours in its trainer or test program."""
    vars(program)['get_root_logger'] = _get_root_logger
    if hasattr(program, 'MessageLogger'):
        vars(program).update(MessageLogger=_MessageLogger)


# ---------------------------------------------------------------------- log file and screen


def _get_root_logger(*args: Any, **kwargs: Any) -> logging.Logger:
    """Returns BasicSR's logger; it also gets this package's messages, and long ones are kept off the screen.

    A failing log file is tolerated.
    """
    is_new = 'basicsr' not in basicsr_logger.initialized_logger
    logger = basicsr_logger.get_root_logger(*args, **kwargs)
    files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    if is_new:
        ours = logging.getLogger('dblr_plugin')
        ours.setLevel(logger.level)
        for handler in logger.handlers:
            ours.addHandler(handler)
    if not (is_new and files):  # only the first process has a file
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
    """Reports a failing log file once, unlike a handler's own ``handleError``, which prints a traceback per line."""
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.Handler.handleError(handler, record)
    elif not getattr(handler, 'has_failed', False):
        vars(handler)['has_failed'] = True
        logger.error('%s. The run continues; its log is shown here only.', write_fault(handler.baseFilename, error))


# ---------------------------------------------------------------------- TensorBoard


class ForgivingWriter:
    """A TensorBoard ``SummaryWriter`` whose methods do nothing once its file cannot be written.

    Args:
        log_dir: The run's folder for TensorBoard files.
        begin: The first iteration of a resumed run. TensorBoard hides what the run wrote from it on before it was
            killed, which would be shown as a second curve; None shows all.
    """

    def __init__(self, log_dir: str, begin: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import, and not every run needs it

        self._log_dir = log_dir
        self._writer: Any = None
        self._writer = self._attempt(lambda: SummaryWriter(log_dir, purge_step=begin))

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
def _init_tb_logger(log_dir: str, *, opt: dict) -> ForgivingWriter:
    threading.excepthook = functools.partial(_report_thread, threading.excepthook)
    return ForgivingWriter(log_dir, opt['resume_iter'] + 1 if 'resume_iter' in opt else None)


def _report_thread(otherwise: Callable[[Any], Any], failure: Any) -> None:
    """Ignores an OSError in TensorBoard's thread: the writer's next call raises it and it is reported then."""
    of_tensorboard = type(failure.thread).__module__.startswith('tensorboard.')
    if not (of_tensorboard and isinstance(failure.exc_value, OSError)):
        otherwise(failure)


@basicsr_logger.master_only
def _init_wandb_logger(opt: dict) -> None:
    """Runs BasicSR's function, which calls one that wandb no longer has.

    Raises:
        DBLRError: wandb cannot start, such as without a key or a network.
    """
    import wandb

    vars(wandb.util).setdefault('generate_id', functools.partial(secrets.token_hex, 4))
    try:
        basicsr_logger.init_wandb_logger(opt)
    except wandb.Error as error:
        raise DBLRError(
            f'logger.wandb: {first_line(error)} To record without it, set WANDB_MODE=offline in the environment, or '
            'leave logger.wandb.project empty'
        ) from error


# ---------------------------------------------------------------------- time estimate


class _MessageLogger(basicsr_logger.MessageLogger):
    """BasicSR's message logger, with its remaining time fixed.

    BasicSR divides the time by one iteration more than it took, two once the first is left out, and ends up negative: a
    run seemed to end in half the time or less at its first lines and at those after a resume.
    """

    start_time: float
    start_iter: int
    max_iters: int

    def __init__(self, opt: dict, start_iter: int = 0, tb_logger: Any = None) -> None:
        super().__init__(opt, start_iter + 1, tb_logger)
        self.max_iters += 1

    def reset_start_time(self) -> None:
        """Leaves the first iteration, which is slow, out of the mean; BasicSR calls this after it."""
        super().reset_start_time()
        self.start_iter += 1

    def __call__(self, log_vars: dict) -> None:
        """Logs an iteration; the first one, after which there is no mean yet, counts as usual."""
        measured = self.start_time, self.start_iter
        if log_vars['iter'] < self.start_iter:
            self.start_time, self.start_iter = self.start_time - log_vars['time'], log_vars['iter']
        super().__call__(log_vars)
        self.start_time, self.start_iter = measured
