"""A run's checkpoints on disk: saves networks and training state as a pair, and finds them again to resume from."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from basicsr.utils import check_resume
from basicsr.utils.dist_util import master_only
from torch import Tensor

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, make_folder, require_space, sha256_of
from dblr_plugin.training.step import of_all_processes
from dblr_plugin.weights.checkpoint import read_checkpoint, save_atomically

__all__ = ['CheckpointFolder', 'load_resume_state', 'size_of']

_log = logging.getLogger(__name__)


class CheckpointFolder:
    """Manages ``models/<net>_<iter>.pth`` and ``training_states/<iter>.state``.

    A state is written after its networks and contains their digests: if it is readable and they match, the checkpoint
    is complete, no matter when the run was killed. ``<net>_latest.pth`` are the networks of the newest checkpoint.

    Args:
        models: Folder of the networks.
        states: Folder of the training states.
        keep: How many checkpoints to keep; None keeps all.
    """

    def __init__(self, models: str | Path, states: str | Path, keep: int | None = None) -> None:
        self.models = Path(models)
        self.states = Path(states)
        self.keep = keep

    def state_path(self, iteration: int) -> Path:
        """Returns the path of an iteration's training state."""
        return self.states / f'{iteration}.state'

    def network_path(self, name: str, iteration: int | str) -> Path:
        """Returns the path of an iteration's network, such as ``net_g``."""
        return self.models / f'{name}_{iteration}.pth'

    def iterations(self) -> list[int]:
        """Returns the iterations that have a state, oldest first."""
        return sorted(int(path.stem) for path in self.states.glob('*.state') if path.stem.isdigit())

    def save(self, iteration: int, networks: dict[str, dict], state: dict) -> None:
        """Writes a checkpoint, makes it the latest, and removes old ones beyond ``keep``.

        Args:
            iteration: The iteration after which it is saved.
            networks: Name, such as ``net_g`` -> contents of its file.
            state: The training state; the networks' digests are added to it.

        Raises:
            DBLRError: If it cannot be written; older checkpoints remain intact.
        """
        self.check_space(size_of(networks) + size_of(state))
        for name, content in networks.items():
            save_atomically(content, self.network_path(name, iteration))
        digests = {name: sha256_of(self.network_path(name, iteration)) for name in networks}
        save_atomically({**state, 'networks': digests}, self.state_path(iteration))
        self.make_latest(iteration, networks)
        self._prune()

    def read(self, iteration: int, networks: list[str]) -> dict:
        """Returns the training state of an iteration, after verifying that its networks were saved with it.

        Raises:
            DBLRError: If a file is missing, damaged, or from another checkpoint.
        """
        path = self.state_path(iteration)
        state = read_checkpoint(path)
        missing = {'epoch', 'iter', 'optimizers', 'schedulers'} - state.keys()
        if missing:
            raise DBLRError(f'{path}: not a training state: {sorted(missing)} missing; name a file of training_states/')
        if state['iter'] != iteration:
            raise DBLRError(f'{path}: holds iteration {state["iter"]}; rename it to {state["iter"]}.state')
        digests = state.get('networks', {})
        for name in networks:
            network = self.network_path(name, iteration)
            if name not in digests:  # saved by BasicSR
                read_checkpoint(network)
            elif not network.is_file():
                raise DBLRError(f'{path}: {network}, which belongs to it, is missing; use another state')
            elif sha256_of(network) != digests[name]:
                raise DBLRError(f'{path}: {network} is damaged, or not the network saved with it; use another state')
        return state

    def is_there(self, iteration: int, networks: Iterable[str]) -> bool:
        """Whether the state and all networks of an iteration exist, regardless of their contents."""
        files = [self.state_path(iteration), *(self.network_path(name, iteration) for name in networks)]
        return all(path.is_file() for path in files)

    def make_latest(self, iteration: int, networks: list[str] | dict[str, dict]) -> None:
        """Makes the networks of a checkpoint available as ``latest``, as hard links where the file system has them."""
        for name in networks:
            with atomic_write(self.network_path(name, 'latest')) as partial:
                try:
                    os.link(self.network_path(name, iteration), partial)
                except OSError:  # no hard links
                    shutil.copyfile(self.network_path(name, iteration), partial)

    def set_aside_after(self, iteration: int) -> list[str]:
        """Renames later states to ``<iteration>.state.old``, and returns their former names.

        They are damaged, or of a training that goes on from an earlier iteration: if they stayed, they would be resumed
        from next time, and :meth:`save` would keep them rather than the checkpoints that it writes.
        """
        later = [self.state_path(other) for other in self.iterations() if other > iteration]
        for path in later:
            path.replace(f'{path}.old')
        return [path.name for path in later]

    def remove_remains(self) -> None:
        """Removes partial files left by a killed save; no other run may be saving here."""
        for folder in (self.models, self.states):
            for path in folder.glob('.*.partial'):
                path.unlink()

    def check_space(self, needed: int) -> None:
        """Raises DBLRError if the disk has no room for a checkpoint of this size, in bytes."""
        require_space(self.models, needed, 'a checkpoint')

    def _prune(self) -> None:
        if self.keep is None:
            return
        for iteration in self.iterations()[: -self.keep]:
            # the state last: as long as it exists, a run killed here will later prune the rest
            for path in self.models.glob(f'net_*_{iteration}.pth'):
                path.unlink(missing_ok=True)
            self.state_path(iteration).unlink(missing_ok=True)


def size_of(content: object) -> int:
    """Returns the size in bytes of all tensors in nested containers."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, dict):
        return sum(map(size_of, content.values()))
    return sum(map(size_of, content)) if isinstance(content, list | tuple) else 0


def load_resume_state(opt: dict) -> dict | None:
    """Replaces ``basicsr.train.load_resume_state``: works on any device, from any root, and rejects damaged files.

    With ``--auto_resume``, uses the newest complete checkpoint; damaged ones are skipped with a warning.
    ``path.resume_state`` names one, which may have been moved with its networks; with ``--auto_resume``, it is used
    only as long as the run has none of its own. In ``opt``, this sets ``resume_iter`` (for the sampler), the
    ``pretrain_network_*`` paths and, if the option file has none, ``manual_seed``.

    Returns:
        The state, on the CPU, or None to start from the beginning.

    Raises:
        DBLRError: If the state named by ``path.resume_state``, or one of its networks, cannot be read, or if the
            processes find different checkpoints.
    """
    folder, state, named = None, None, opt['path'].get('resume_state')
    if opt['auto_resume']:
        folder = CheckpointFolder(opt['path']['models'], opt['path']['training_states'])
        state = _newest_state(folder, opt)
    if state is None and named:
        path = Path(named)
        if not path.stem.isdigit():
            raise DBLRError(f'path.resume_state: {path}: not <iteration>.state; name a file of training_states/')
        folder = _folder_of(path, opt)
        state = folder.read(int(path.stem), _networks(opt))
    if folder is None:
        return None
    _agree(None if state is None else state['iter'], opt)
    if state is not None:
        _make_folders(opt)
        _take_networks(opt, folder.models, state['iter'])
        opt['resume_iter'] = state['iter']
        if opt.get('draws_seed') and isinstance(state.get('manual_seed'), int):  # older states and BasicSR's have none
            opt['manual_seed'] = state['manual_seed']
    return state


def _folder_of(state: Path, opt: dict) -> CheckpointFolder:
    """Finds a state's networks: in ``models`` next to its folder, next to the state, or in this experiment."""
    own = Path(opt['path']['models'])
    folders = [CheckpointFolder(models, state.parent) for models in (state.parent.parent / 'models', state.parent, own)]
    found = (folder for folder in folders if folder.is_there(int(state.stem), _networks(opt)))
    return next(found, folders[-1])


@master_only
def _make_folders(opt: dict) -> None:
    """Creates the experiment's folders, which BasicSR does only for runs that start from the beginning."""
    for name in ('experiments_root', 'models', 'training_states', 'log', 'visualization'):
        make_folder(Path(opt['path'][name]))


def _take_networks(opt: dict, models: Path, iteration: int) -> None:
    """Lets BasicSR set ``pretrain_network_*`` to the networks in a folder, not necessarily this experiment's."""
    own = opt['path']['models']
    opt['path']['models'] = str(models)
    try:
        check_resume(opt, iteration)
    finally:
        opt['path']['models'] = own


def _agree(iteration: int | None, opt: dict) -> None:
    """Refuses to train if some nodes lack the checkpoint or have an older one."""
    found = of_all_processes(iteration)
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
            _log.warning('skipping %s: %s', folder.state_path(iteration), error)
            continue
        found, named = folder.state_path(iteration), opt['path'].get('resume_state')
        if named and Path(named).resolve() != found.resolve():
            _log.warning('path.resume_state, %s, is not used: --auto_resume found %s', named, found)
        opt['path']['resume_state'] = str(found)
        return state
    return None


def _networks(opt: dict) -> list[str]:
    """Returns the networks to resume, named like their files: ``net_g``."""
    ignored = opt['path'].get('ignore_resume_networks') or []
    networks = [key for key, network in opt.items() if key.startswith('network_') and network is not None]
    return [f'net_{key.removeprefix("network_")}' for key in networks if key not in ignored]
