"""Finds and checks the training state to resume from."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from basicsr.utils import check_resume
from basicsr.utils.dist_util import master_only
from torch.optim import Optimizer

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import make_folder
from dblr_plugin.training.saving import CheckpointFolder

__all__ = ['load_resume_state', 'overruled', 'refuse_damage', 'refuse_other_optimizers']


def load_resume_state(opt: dict) -> dict | None:
    """Takes the place of ``basicsr.train.load_resume_state``: any device, any root, no damaged file.

    With ``--auto_resume`` the newest complete checkpoint is taken; damaged ones are skipped with a warning.
    ``path.resume_state`` names one, which may have been moved with its networks. Sets ``resume_iter`` (for the
    sampler) and the ``pretrain_network_*`` paths in ``opt``.

    Returns:
        The state, on the CPU, or None to start anew.

    Raises:
        DBLRError: If the state named by ``path.resume_state``, or a network that belongs to it, cannot be read, or if
            the processes do not find the same one.
    """
    if opt['auto_resume']:
        folder = CheckpointFolder(opt['path']['models'], opt['path']['training_states'])
        state = _newest_state(folder, opt)
    elif opt['path'].get('resume_state'):
        path = Path(opt['path']['resume_state'])
        if not path.stem.isdigit():
            raise DBLRError(f'path.resume_state: {path}: not <iteration>.state; name a file of training_states/')
        folder = _folder_of(path, opt)
        state = folder.read(int(path.stem), _networks(opt))
    else:
        return None
    _agree(None if state is None else state['iter'], opt)
    if state is not None:
        _make_folders(opt)
        _take_networks(opt, folder.models, state['iter'])
        opt['resume_iter'] = state['iter']
    return state


def _folder_of(state: Path, opt: dict) -> CheckpointFolder:
    """Where the networks of a state are: in ``models`` beside its folder, beside itself, or with this experiment."""
    own = Path(opt['path']['models'])
    folders = [CheckpointFolder(models, state.parent) for models in (state.parent.parent / 'models', state.parent, own)]
    found = (folder for folder in folders if folder.is_there(int(state.stem), _networks(opt)))
    return next(found, folders[-1])


@master_only
def _make_folders(opt: dict) -> None:
    """Makes the experiment's folders, as BasicSR does only for runs that start anew."""
    for name in ('experiments_root', 'models', 'training_states', 'log', 'visualization'):
        make_folder(Path(opt['path'][name]))


def _take_networks(opt: dict, models: Path, iteration: int) -> None:
    """Has BasicSR set ``pretrain_network_*`` to networks in a folder that need not be this experiment's."""
    own = opt['path']['models']
    opt['path']['models'] = str(models)
    try:
        check_resume(opt, iteration)
    finally:
        opt['path']['models'] = own


def _agree(iteration: int | None, opt: dict) -> None:
    """Refuses to train where only some of the nodes have the checkpoint, or an older one."""
    if not opt['dist']:
        return
    found: list[Any] = [None] * opt['world_size']
    dist.all_gather_object(found, iteration)
    if len(set(found)) > 1:
        raise DBLRError(
            f'{opt["path"]["experiments_root"]}: the processes found checkpoints of different iterations ({found}); '
            f'put it on a file system that all nodes share, or copy it to each of them'
        )


def _newest_state(folder: CheckpointFolder, opt: dict) -> dict | None:
    for iteration in reversed(folder.iterations()):
        try:
            state = folder.read(iteration, _networks(opt))
        except DBLRError as error:
            # BasicSR's logger cannot be used before the experiment folder exists
            logging.getLogger('dblr_plugin').warning('skipping %s: %s', folder.state_path(iteration), error)
            continue
        opt['path']['resume_state'] = str(folder.state_path(iteration))
        return state
    return None


def _networks(opt: dict) -> list[str]:
    """The networks that resuming reads, as their files are called."""
    ignored = opt['path'].get('ignore_resume_networks') or []
    return [f'net_{k.removeprefix("network_")}' for k in opt if k.startswith('network_') and k not in ignored]


def refuse_other_optimizers(optimizers: Sequence[Optimizer], state: dict) -> None:
    """Refuses a training state of optimisers of other classes; torch takes it, and fails at the first step.

    Raises:
        ValueError: If there is one.
    """
    names = state.get('optimizer_types') or [None] * len(optimizers)  # older states and BasicSR's do not say
    for optimizer, saved, name in zip(optimizers, state['optimizers'], names, strict=True):
        own = type(optimizer).__name__
        unknown = next((key for key in ('betas', 'momentum', 'alpha', 'rho') if _has(optimizer, key, saved)), None)
        if (name is not None and name != own) or (name is None and unknown is not None):
            what = name or f'another one, without {unknown}'
            raise ValueError(f'its optimiser is {what}, and that of the option file is {own}')


def refuse_damage(optimizers: Sequence[Optimizer], schedulers: Sequence[Any], state: dict) -> None:
    """Refuses numbers and tensors that torch takes into optimisers and schedulers, and fails with at the next step.

    Raises:
        ValueError: If there is one.
    """
    for optimizer, saved in zip(optimizers, state['optimizers'], strict=True):
        for own, theirs in zip(optimizer.param_groups, saved['param_groups'], strict=False):
            _refuse_other_numbers(own, theirs)
            for parameter, index in zip(own['params'], theirs['params'], strict=False):
                kept = saved['state'].get(index, {})
                unfit = next((k for k in _OF_PARAMETERS if k in kept and kept[k].shape != parameter.shape), None)
                if unfit is not None:
                    raise ValueError(f'{unfit} of parameter {index} has another shape')
    for scheduler, saved in zip(schedulers, state['schedulers'], strict=True):
        _refuse_other_numbers(scheduler.state_dict(), saved)


#: What optimisers keep in the shape of a parameter
_OF_PARAMETERS = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'exp_inf', 'momentum_buffer', 'square_avg', 'acc_delta')


def _refuse_other_numbers(own: dict, saved: dict) -> None:
    for key, value in own.items():
        if isinstance(value, int | float) and isinstance(saved.get(key), str | bytes | list | tuple | dict):
            raise ValueError(f'{key} is {saved[key]!r}, no number')


def _has(optimizer: Optimizer, key: str, saved: dict) -> bool:
    return key in optimizer.defaults and not all(key in group for group in saved['param_groups'])


def overruled(optimizers: Sequence[Optimizer], schedulers: Sequence[Any], state: dict) -> Iterator[str]:
    """Says in which settings a training state differs from optimisers and schedulers that were made anew.

    BasicSR and torch go on with those of the state.

    Yields:
        ``lr is 5e-05 in the option file and 0.001 in the state``.
    """
    for optimizer, saved in zip(optimizers, state['optimizers'], strict=True):
        for key in optimizer.defaults:
            name = 'initial_lr' if key == 'lr' else key
            own, theirs = ([group.get(name) for group in groups] for groups in (
                optimizer.param_groups, saved['param_groups']
            ))  # fmt: skip
            yield from _difference(key, own[0], theirs[0]) if own != theirs else ()
    for scheduler, saved in zip(schedulers, state['schedulers'], strict=True):
        for key in inspect.signature(type(scheduler)).parameters:
            if key != 'last_epoch' and key in saved and key in scheduler.__dict__:
                yield from _difference(key, scheduler.__dict__[key], saved[key])


def _difference(key: str, own: Any, saved: Any) -> Iterator[str]:
    own, saved = ([*value.elements()] if hasattr(value, 'elements') else value for value in (own, saved))
    plain = [list(value) if isinstance(value, tuple) else value for value in (own, saved)]
    # newer versions of torch have settings that older ones did not save
    if plain[0] != plain[1] and saved is not None:
        yield f'{key} is {own} in the option file and {saved} in the state'
