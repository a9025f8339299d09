"""Checks for options that this machine cannot run."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from pathlib import Path

import torch

from dblr_plugin.errors import DBLRError, nearest, raise_faults
from dblr_plugin.weights.shipped import SHIPPED

__all__ = ['check_options']


def check_options(opt: dict) -> None:
    """Rejects parsed options that this machine cannot run.

    BasicSR would fail only after archiving an older experiment with the same name. With several GPUs and a single
    process, where BasicSR would use ``DataParallel``, ``num_gpu`` becomes 1.

    Raises:
        DBLRError: More GPUs are requested than available, prefetching or compiling cannot work, or wandb or a path
            does not exist.
    """
    found = torch.cuda.device_count()
    if opt['num_gpu'] > found:
        raise DBLRError(f'num_gpu is {opt["num_gpu"]}, but {found} CUDA devices are visible; set num_gpu: auto')
    if opt['num_gpu'] == 0:
        _check_without_gpu(opt)
    if ((opt.get('logger') or {}).get('wandb') or {}).get('project') and importlib.util.find_spec('wandb') is None:
        raise DBLRError('logger.wandb needs: pip install wandb; or leave its project empty')
    _check_paths(opt)
    if opt['num_gpu'] > 1 and not opt['dist']:
        logging.getLogger('dblr_plugin').warning(
            'One of %d GPUs is used. All are with: torchrun --nproc_per_node=%d -m dblr_plugin.%s -opt FILE',
            opt['num_gpu'], opt['num_gpu'], 'train' if opt['is_train'] else 'test',
        )  # fmt: skip
        opt['num_gpu'] = 1


def _check_without_gpu(opt: dict) -> None:
    if opt['datasets'].get('train', {}).get('prefetch_mode') == 'cuda':
        raise DBLRError('datasets.train.prefetch_mode: cuda needs a GPU; remove the line')
    compilers = (os.environ.get('CXX'), 'g++', 'clang++', 'c++')
    if (opt.get('train') or {}).get('compile') and not any(shutil.which(name) for name in compilers if name):
        raise DBLRError('train.compile needs a C++ compiler on the CPU; install g++, or remove the line')


def _check_paths(opt: dict) -> None:
    paths = {
        f'datasets.{name}.{key}': dataset.get(key)
        for name, dataset in opt['datasets'].items()
        for key in ('dataroot_lq', 'dataroot_gt', 'meta_info_file')
    }
    if not (opt['auto_resume'] or opt['path'].get('resume_state')):
        paths |= {f'path.{key}': value for key, value in opt['path'].items() if key.startswith('pretrain_network_')}
    faults = []
    for key, path in paths.items():
        if path is not None and not Path(path).exists():
            hint = '; dblr prepare makes data sets' if key.startswith('datasets.') else nearest(path, SHIPPED)
            faults.append(f'{key}: {path} does not exist (looked up from {Path.cwd()}){hint}')
    raise_faults(faults, 'options')
