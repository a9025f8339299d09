"""The checkpoints of a run: networks and training state saved as a pair, the newest under ``latest``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, require_space, sha256_of
from dblr_plugin.weights import read_checkpoint, save_atomically

__all__ = ['CheckpointFolder', 'size_of']


class CheckpointFolder:
    """``models/<net>_<iter>.pth`` and ``training_states/<iter>.state``.

    A state is written after its networks and holds their digests: where it can be read and they agree, the
    checkpoint is complete, whenever the run was killed. ``<net>_latest.pth`` are the networks of the newest one.

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
        """Where the training state of an iteration is."""
        return self.states / f'{iteration}.state'

    def network_path(self, name: str, iteration: int | str) -> Path:
        """Where a network, such as ``net_g``, of an iteration is."""
        return self.models / f'{name}_{iteration}.pth'

    def iterations(self) -> list[int]:
        """The iterations of which there is a state, oldest first."""
        return sorted(int(path.stem) for path in self.states.glob('*.state') if path.stem.isdigit())

    def save(self, iteration: int, networks: dict[str, dict], state: dict) -> None:
        """Writes a checkpoint, makes it the latest, and removes those too many.

        Args:
            iteration: Whose it is.
            networks: Name, such as ``net_g``, to what its file is to hold.
            state: The training state; the networks' digests are added to it.

        Raises:
            DBLRError: If it cannot be written; older checkpoints are as they were.
        """
        self.check_space(size_of(networks) + size_of(state))
        for name, content in networks.items():
            save_atomically(content, self.network_path(name, iteration))
        digests = {name: sha256_of(self.network_path(name, iteration)) for name in networks}
        save_atomically({**state, 'networks': digests}, self.state_path(iteration))
        self.make_latest(iteration, networks)
        self._prune()

    def read(self, iteration: int, networks: list[str]) -> dict:
        """The training state of an iteration, once it is certain that its networks are the ones saved with it.

        Raises:
            DBLRError: If a file is missing, damaged, or of another checkpoint.
        """
        path = self.state_path(iteration)
        state = read_checkpoint(path)
        missing = {'epoch', 'iter', 'optimizers', 'schedulers'} - state.keys()
        if missing:
            raise DBLRError(f'{path}: not a training state: {sorted(missing)} missing; name a file of training_states/')
        if state['iter'] != iteration:
            raise DBLRError(f'{path}: holds iteration {state["iter"]}; give it back its name')
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
        """Whether there are a state and all networks of an iteration, whatever is in them."""
        files = [self.state_path(iteration), *(self.network_path(name, iteration) for name in networks)]
        return all(path.is_file() for path in files)

    def make_latest(self, iteration: int, networks: list[str] | dict[str, dict]) -> None:
        """Gives the networks of a checkpoint the name ``latest`` as well, without a copy where the disk can."""
        for name in networks:
            with atomic_write(self.network_path(name, 'latest')) as partial:
                try:
                    os.link(self.network_path(name, iteration), partial)
                except OSError:  # a file system without hard links
                    shutil.copyfile(self.network_path(name, iteration), partial)

    def remove_remains(self) -> None:
        """Removes what a save left that was killed; no other run may be saving here."""
        for folder in (self.models, self.states):
            for path in folder.glob('.*.partial'):
                path.unlink()

    def check_space(self, needed: int) -> None:
        """Refuses to write, or to begin, where not even one checkpoint fits.

        Args:
            needed: Bytes of one.

        Raises:
            DBLRError: If the disk has less.
        """
        require_space(self.models, needed, 'a checkpoint')

    def _prune(self) -> None:
        if self.keep is None:
            return
        for iteration in self.iterations()[: -self.keep]:
            # the state last: as long as it is there, a run that was killed here comes back to the rest
            for path in self.models.glob(f'net_*_{iteration}.pth'):
                path.unlink(missing_ok=True)
            self.state_path(iteration).unlink(missing_ok=True)


def size_of(content: object) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(content, Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, dict):
        return sum(map(size_of, content.values()))
    return sum(map(size_of, content)) if isinstance(content, list | tuple) else 0
