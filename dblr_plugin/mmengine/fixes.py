"""Fixes for MMEngine 0.10.7 on current torch, setuptools and lmdb, and without GPUs: one small function per defect."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import config
from mmengine.dist import utils as dist_utils
from mmengine.fileio.backends.lmdb_backend import LmdbBackend
from mmengine.hooks import EMAHook
from mmengine.hub import hub
from mmengine.logging import HistoryBuffer
from mmengine.model import MMDistributedDataParallel
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner

from dblr_plugin.data.lmdb_store import shared_environment

__all__ = ['apply']


def apply() -> None:
    """Fixes all defects in this process; call it once."""
    _load_logs_in_checkpoints()
    _find_packages_without_pkg_resources()
    _open_databases_once()
    _average_any_checkpoint()
    if not torch.cuda.is_available():
        _start_processes_without_gpus()
        _mix_precision_without_gpus()


def _load_logs_in_checkpoints() -> None:
    """The Runner cannot load its own checkpoints: they contain ``HistoryBuffer``; torch >= 2.6 loads only weights."""
    # private, but named in the pickles; numpy 1 calls it core
    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_statistic, 'builtins.getattr'),
            multiarray._reconstruct,
            multiarray.scalar,
            np.ndarray,
            np.dtype,
            np.dtypes.Float64DType,
            np.dtypes.Int64DType,
        ]
    )


def _statistic(owner: object, name: str) -> Any:
    """Returns a method of ``HistoryBuffer``, which pickles its own; plain ``getattr`` would let a file get anything."""
    if owner is not HistoryBuffer:
        raise ValueError(f'a checkpoint may not take {name} of {owner}')
    return getattr(owner, name)


def _find_packages_without_pkg_resources() -> None:
    """``_base_ = 'mmagic::...'`` looks packages up with ``pkg_resources``, which setuptools >= 82 lacks."""
    for module in (config, hub):
        module.get_installed_path = _installed_path
    config.is_installed = lambda package: importlib.util.find_spec(package) is not None


def _installed_path(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f'{package} is not installed, or has no __init__.py')
    return str(Path(spec.origin).parent)


def _open_databases_once() -> None:
    """Two ``LmdbBackend`` on one path fail, as lmdb >= 2.3 opens a database only once per process."""
    LmdbBackend._get_client = lambda self: shared_environment(Path(self.db_path))
    LmdbBackend.__del__ = lambda self: None  # others may still be reading


def _average_any_checkpoint() -> None:
    """``EMAHook`` fails with a checkpoint without ``state_dict``, although the Runner loads its content as weights."""
    load = EMAHook.after_load_checkpoint

    @functools.wraps(load)
    def wrapped(self: EMAHook, runner: Runner, checkpoint: dict) -> None:
        load(self, runner, checkpoint if 'state_dict' in checkpoint else {'state_dict': checkpoint})

    EMAHook.after_load_checkpoint = wrapped


def _start_processes_without_gpus() -> None:
    """``launcher='pytorch'`` selects a GPU and passes it to DistributedDataParallel even if there is none."""
    dist_utils._init_dist_pytorch = _init_process_group
    MMDistributedDataParallel.__init__ = _without_device_ids(MMDistributedDataParallel.__init__)


def _init_process_group(backend: str, init_backend: str = 'torch', **kwargs: Any) -> None:
    dist.init_process_group('gloo', **kwargs)


def _without_device_ids(init: Any) -> Any:
    @functools.wraps(init)
    def wrapped(self: MMDistributedDataParallel, module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, module, *args, **{**kwargs, 'device_ids': None})

    return wrapped


def _mix_precision_without_gpus() -> None:
    """``AmpOptimWrapper`` rejects CPUs, but they have bf16. It needs no loss scaling; MMEngine rejects fp16 there."""
    amp_optimizer_wrapper.is_cuda_available = lambda: True
    amp_optimizer_wrapper.GradScaler = functools.partial(torch.amp.GradScaler, 'cpu', enabled=False)
