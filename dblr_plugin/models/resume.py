"""Which training state to resume from."""

from __future__ import annotations

import logging
from pathlib import Path

from basicsr.utils import check_resume

from dblr_plugin.errors import DBLRError
from dblr_plugin.models.checkpoint import read_checkpoint

__all__ = ['load_resume_state']


def load_resume_state(opt: dict) -> dict | None:
    """Takes the place of ``basicsr.train.load_resume_state``: any device, any root, no damaged file.

    With ``--auto_resume`` the newest state is taken that is readable and whose networks are; damaged ones are
    skipped with a warning. ``path.resume_state`` names one. Sets ``resume_iter`` (for the sampler) and the
    ``pretrain_network_*`` paths in ``opt``.

    Returns:
        The state, on the CPU, or None to start anew.

    Raises:
        DBLRError: If the state named by ``path.resume_state``, or a network that belongs to it, cannot be read.
    """
    if opt['auto_resume']:
        state = _newest_state(opt)
    elif opt['path'].get('resume_state'):
        state = _read_pair(opt, Path(opt['path']['resume_state']))
    else:
        return None
    if state is not None:
        check_resume(opt, state['iter'])
        opt['resume_iter'] = state['iter']
    return state


def _newest_state(opt: dict) -> dict | None:
    paths = [p for p in Path(opt['path']['training_states']).glob('*.state') if p.stem.isdigit()]
    for path in sorted(paths, key=lambda p: int(p.stem), reverse=True):
        try:
            state = _read_pair(opt, path)
        except DBLRError as error:
            # BasicSR's logger cannot be used before the experiment folder exists
            logging.getLogger('dblr_plugin').warning('skipping %s: %s', path, error)
            continue
        opt['path']['resume_state'] = str(path)
        return state
    return None


def _read_pair(opt: dict, path: Path) -> dict:
    """Reads a state after making sure that the networks saved with it are there and readable."""
    state = read_checkpoint(path)
    missing = {'epoch', 'iter', 'optimizers', 'schedulers'} - state.keys()
    if missing:
        raise DBLRError(f'{path}: not a training state: {sorted(missing)} missing; name a file of training_states/')
    ignored = opt['path'].get('ignore_resume_networks') or []
    for network in (k for k in opt if k.startswith('network_') and k not in ignored):
        read_checkpoint(Path(opt['path']['models']) / f'net_{network[len("network_") :]}_{state["iter"]}.pth')
    return state
