"""Damaged checkpoints: weights to start from or to test, and training states to resume from."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from cases import Case, Desk
from mutations import ANY_FILE, INSIDE_OF_CHECKPOINT, OF_SAFETENSORS, Damage, damage

from dblr_plugin.weights.checkpoint import save_atomically

__all__ = ['checkpoints', 'skipped_states']

_KINDS = ANY_FILE | INSIDE_OF_CHECKPOINT
STATE = 'training_states/1.state'


def _train(desk: Desk, path: Path) -> list[object]:
    return desk.train(changes={'path.pretrain_network_g': str(path)})


def _test(desk: Desk, path: Path) -> list[object]:
    return desk.test(changes={'path.pretrain_network_g': str(path)})


_USERS = {'train': _train, 'test': _test}


def checkpoints() -> Iterator[Case]:
    """Yields damaged weights, then damaged states."""
    for number, (name, kind) in enumerate(_KINDS.items()):
        for user in _USERS if number % 2 else ('test',):
            spoil, again = partial(_damaged_weights, kind, user), bool(number % 2) and user == 'test'
            yield Case(f'weights-{name}-{user}', spoil, ('net.pth',), again=again)
    for number, content in enumerate(_CONTENTS):
        user = list(_USERS)[number % 2]
        yield Case(f'weights-{content.__name__}-{user}', partial(_other_weights, content, user), ('net.pth',))
    for name, kind in OF_SAFETENSORS.items():
        spoil = partial(_safetensors, intact_weights, kind)
        yield Case(f'safetensors-{name}', spoil, ('net.safetensors: damaged', 'use another one'))
    for content in (weight_missing, keys_renamed, weight_of_other_shape):
        culprits = ('net.safetensors: not a checkpoint of this DBLRNet', 'network_g')
        yield Case(f'safetensors-{content.__name__}', partial(_safetensors, content, None), culprits)
    for name, kind in _KINDS.items():
        yield Case(f'state-{name}', partial(_resumed, partial(_damage_state, kind)), ('1.state',))
    for change, culprit in _EXPERIMENTS:
        yield Case(f'state-{change.__name__}', partial(_resumed, change), (culprit,))


def skipped_states() -> Iterator[Case]:
    """Yields damaged states that ``--auto_resume`` skips with a warning, as documented."""
    for number, (name, kind) in enumerate(_KINDS.items()):
        spoil = partial(_auto_resumed, partial(_damage_state, kind))
        yield Case(f'state-{name}', spoil, ('skipping', '1.state'), again=number % 4 > 0)
    for change in (network_damaged, network_missing, state_of_another_run):
        yield Case(f'state-{change.__name__}', partial(_auto_resumed, change), ('skipping', '1.state'))


def _damaged_weights(kind: Damage, user: str, desk: Desk) -> list[object]:
    path = desk.copy('net')
    damage(path, kind)
    return _USERS[user](desk, path)


def _other_weights(content: Callable[[dict], object], user: str, desk: Desk) -> list[object]:
    path = desk.inputs / 'net.pth'
    weights = torch.load(desk.supplies['net'], weights_only=True)['params']
    made = content(weights)
    path.write_bytes(made) if isinstance(made, bytes) else torch.save(made, path)
    return _USERS[user](desk, path)


def _safetensors(content: Callable[[dict], dict], kind: Damage | None, desk: Desk) -> list[object]:
    path = desk.inputs / 'net.safetensors'
    save_atomically(content(torch.load(desk.supplies['net'], weights_only=True)['params']), path)
    if kind is not None:
        damage(path, kind)
    return _test(desk, path)


def _resumed(change: Callable[[Path, Desk], None], desk: Desk) -> list[object]:
    folder = _experiment(change, desk)
    return desk.train(changes={'path.resume_state': str(folder / STATE), 'train.total_iter': 2})


def _auto_resumed(change: Callable[[Path, Desk], None], desk: Desk) -> list[object]:
    _experiment(change, desk)
    return [*desk.train(), '--auto_resume']


def _experiment(change: Callable[[Path, Desk], None], desk: Desk) -> Path:
    """Copies an experiment of one iteration to where the next training resumes it."""
    folder = desk.cwd / 'experiments/net'
    shutil.copytree(desk.supplies['experiment'], folder)
    change(folder, desk)
    return folder


def _damage_state(kind: Damage, folder: Path, desk: Desk) -> None:
    damage(folder / STATE, kind)


# ---------------------------------------------------------------------- undamaged files with the wrong content


def intact_weights(weights: dict) -> dict:
    """The right network."""
    return {'params': weights}


def list_of_numbers(weights: dict) -> object:
    """A checkpoint that is a list."""
    return [1, 2, 3]


def nothing_in_it(weights: dict) -> object:
    """An empty checkpoint."""
    return {}


def empty_params(weights: dict) -> object:
    """A network without weights."""
    return {'params': {}}


def weight_missing(weights: dict) -> object:
    """A network without its first layer."""
    return {'params': {key: value for key, value in weights.items() if not key.startswith('conv_l1')}}


def weight_unknown(weights: dict) -> object:
    """A network with an additional layer."""
    return {'params': weights | {'extra.weight': torch.zeros(3)}}


def weight_of_other_shape(weights: dict) -> object:
    """A network of another width."""
    return {'params': {key: value.flatten()[:1] for key, value in weights.items()}}


def keys_renamed(weights: dict) -> object:
    """A network of another implementation."""
    renamed = {key.replace('conv_', 'layer_').replace('body', 'blocks'): value for key, value in weights.items()}
    return {'params': renamed}


def keys_are_numbers(weights: dict) -> object:
    """A list of weights, saved as a dict."""
    return {'params': dict(enumerate(weights.values()))}


def bare_keys_are_numbers(weights: dict) -> object:
    """The same without ``params``."""
    return dict(enumerate(weights.values()))


def weights_are_numbers(weights: dict) -> object:
    """Numbers in place of tensors."""
    return {'params': dict.fromkeys(weights, 0.5)}


def weights_are_lists(weights: dict) -> object:
    """Lists in place of tensors."""
    return {'params': {key: value.tolist() for key, value in weights.items()}}


def a_state(weights: dict) -> object:
    """A training state in place of a network."""
    return {'epoch': 1, 'iter': 5, 'optimizers': [{'state': {}, 'param_groups': []}], 'schedulers': []}


def not_finite(weights: dict) -> object:
    """A network whose training diverged."""
    return {'params': {key: value * float('nan') for key, value in weights.items()}}


def half_not_finite(weights: dict) -> object:
    """A network with one infinite weight."""
    changed = {key: value.clone() for key, value in weights.items()}
    changed['conv_l2.weight'].view(-1)[7] = float('inf')
    return {'params': changed}


class RunsCode:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return eval, ("open('ran', 'w')",)


def pickle_with_code(weights: dict) -> object:
    """A pickle that runs code."""
    return pickle.dumps({'params': RunsCode()})


def pickle_of_weights(weights: dict) -> object:
    """Weights that were pickled instead of saved by torch."""
    return pickle.dumps({key: value.numpy() for key, value in weights.items()})


def torch_file_with_code(weights: dict) -> object:
    """A torch file that runs code."""
    return {'params': {**weights, 'conv_l1.weight': RunsCode()}}


_CONTENTS = (
    list_of_numbers, nothing_in_it, empty_params, weight_missing, weight_unknown, weight_of_other_shape, keys_renamed,
    keys_are_numbers, bare_keys_are_numbers, weights_are_numbers, weights_are_lists, a_state, not_finite,
    half_not_finite, pickle_with_code, pickle_of_weights, torch_file_with_code,
)  # fmt: skip


def _edited(folder: Path, edit: Callable[[dict], object]) -> None:
    state = torch.load(folder / STATE, weights_only=True)
    torch.save(edit(state) or state, folder / STATE)


def state_missing(folder: Path, desk: Desk) -> None:
    """A missing state."""
    (folder / STATE).unlink()


def state_is_network(folder: Path, desk: Desk) -> None:
    """A network with the name of a state."""
    shutil.copy(folder / 'models/net_g_1.pth', folder / STATE)


def state_is_folder(folder: Path, desk: Desk) -> None:
    """A folder with the name of a state."""
    (folder / STATE).unlink()
    (folder / STATE).mkdir()


def state_of_another_run(folder: Path, desk: Desk) -> None:
    """The state of a run with other networks."""
    shutil.copy(desk.supplies['other_experiment'] / STATE, folder / STATE)


def state_of_another_iteration(folder: Path, desk: Desk) -> None:
    """A renamed state."""
    _edited(folder, lambda state: state.update(iter=7))


def state_without_optimisers(folder: Path, desk: Desk) -> None:
    """A state without optimisers."""
    _edited(folder, lambda state: state.pop('optimizers') and None)


def state_of_other_optimisers(folder: Path, desk: Desk) -> None:
    """A state whose optimiser has other parameters than the network."""
    _edited(folder, lambda state: state['optimizers'][0]['param_groups'][0]['params'].pop() and None)


def state_with_too_many_optimisers(folder: Path, desk: Desk) -> None:
    """A state of a GAN."""
    _edited(folder, lambda state: state['optimizers'].append(state['optimizers'][0]))


def state_with_optimisers_of_numbers(folder: Path, desk: Desk) -> None:
    """A state whose optimisers are numbers."""
    _edited(folder, lambda state: state.update(optimizers=[1]))


def network_missing(folder: Path, desk: Desk) -> None:
    """A state whose network is missing."""
    (folder / 'models/net_g_1.pth').unlink()


def network_damaged(folder: Path, desk: Desk) -> None:
    """A state whose network has an overwritten block."""
    damage(folder / 'models/net_g_1.pth', INSIDE_OF_CHECKPOINT['block_overwritten'])


def network_of_another_run(folder: Path, desk: Desk) -> None:
    """A state with the network of another run."""
    shutil.copy(desk.supplies['other_experiment'] / 'models/net_g_1.pth', folder / 'models/net_g_1.pth')


_EXPERIMENTS = (
    (state_missing, '1.state'),
    (state_is_network, '1.state'),
    (state_is_folder, '1.state'),
    (state_of_another_run, '1.state'),
    (state_of_another_iteration, '1.state'),
    (state_without_optimisers, 'optimizers'),
    (state_of_other_optimisers, '1.state'),
    (state_with_too_many_optimisers, '1.state'),
    (state_with_optimisers_of_numbers, '1.state'),
    (network_missing, 'net_g_1.pth'),
    (network_damaged, 'net_g_1.pth'),
    (network_of_another_run, 'net_g_1.pth'),
)
