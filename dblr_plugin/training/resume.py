"""Which training state to resume from."""

from __future__ import annotations

import logging
from pathlib import Path

import torch.distributed as dist
from basicsr.utils import check_resume

from dblr_plugin.errors import DBLRError
from dblr_plugin.training.saving import CheckpointFolder

__all__ = ['load_resume_state']


def load_resume_state(opt: dict) -> dict | None:
    """Takes the place of ``basicsr.train.load_resume_state``: any device, any root, no damaged file.

    With ``--auto_resume`` the newest complete checkpoint is taken; damaged ones are skipped with a warning.
    ``path.resume_state`` names one. Sets ``resume_iter`` (for the sampler) and the ``pretrain_network_*`` paths in
    ``opt``.

    Returns:
        The state, on the CPU, or None to start anew.

    Raises:
        DBLRError: If the state named by ``path.resume_state``, or a network that belongs to it, cannot be read, or if
            the processes do not find the same one.
    """
    if opt['auto_resume']:
        state = _newest_state(opt)
    elif opt['path'].get('resume_state'):
        path = Path(opt['path']['resume_state'])
        if not path.stem.isdigit():
            raise DBLRError(f'path.resume_state: {path}: not <iteration>.state; name a file of training_states/')
        state = CheckpointFolder(opt['path']['models'], path.parent).read(int(path.stem), _networks(opt))
    else:
        return None
    _agree(None if state is None else state['iter'], opt)
    if state is not None:
        check_resume(opt, state['iter'])
        opt['resume_iter'] = state['iter']
    return state


def _agree(iteration: int | None, opt: dict) -> None:
    """Refuses to train where only some of the nodes have the checkpoint, or an older one."""
    if not opt['dist']:
        return
    found = [None] * opt['world_size']
    dist.all_gather_object(found, iteration)
    if len(set(found)) > 1:
        raise DBLRError(
            f'{opt["path"]["experiments_root"]}: the processes found checkpoints of different iterations ({found}); '
            f'put it on a file system that all nodes share, or copy it to each of them'
        )


def _newest_state(opt: dict) -> dict | None:
    folder = CheckpointFolder(opt['path']['models'], opt['path']['training_states'])
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
