"""Checkpoints on disk are pairs of networks and state: pruned, checked to belong together, and found after a move."""

import os
from pathlib import Path

import pytest
import torch

from dblr_plugin.errors import DBLRError
from dblr_plugin.training.checkpoint_folder import CheckpointFolder, load_resume_state


@pytest.fixture
def folder(tmp_path):
    for name in ('models', 'states'):
        (tmp_path / name).mkdir()
    return CheckpointFolder(tmp_path / 'models', tmp_path / 'states')


def save(folder: CheckpointFolder, iteration: int, value: float | None = None) -> None:
    weights = torch.full((1000,), float(iteration if value is None else value))
    networks = {'net_g': {'params': {'w': weights}}, 'net_d': {'params': {'w': -weights}}}
    folder.save(iteration, networks, {'epoch': 0, 'iter': iteration, 'optimizers': [], 'schedulers': []})


def files(folder: CheckpointFolder) -> list[str]:
    return sorted(p.name for p in [*folder.models.iterdir(), *folder.states.iterdir()])


def test_latest_is_a_link_to_the_newest_networks(folder):
    for iteration in (5, 10):
        save(folder, iteration)
    for name in ('net_g', 'net_d'):
        latest = folder.network_path(name, 'latest')
        assert latest.samefile(folder.network_path(name, 10))
    assert folder.read(10, ['net_g', 'net_d'])['iter'] == 10


def test_latest_is_a_copy_without_hard_links(folder, monkeypatch):
    def refuse(*args):
        raise OSError('no links here')

    monkeypatch.setattr(os, 'link', refuse)
    save(folder, 5)
    latest = folder.network_path('net_g', 'latest')
    assert latest.read_bytes() == folder.network_path('net_g', 5).read_bytes()


def test_older_checkpoints_are_removed(folder):
    folder.keep = 2
    for iteration in (5, 10, 15, 100):
        save(folder, iteration)
    assert files(folder) == sorted(
        [f'{i}.state' for i in (15, 100)] + [f'net_{n}_{i}.pth' for n in 'dg' for i in (15, 100, 'latest')]
    )


def test_checkpoints_after_the_one_resumed_from_do_not_count(folder):
    """One of them may be damaged: the new ones are kept in its place, and are the next to be resumed from."""
    for iteration in (5, 10, 15):
        save(folder, iteration)
    folder.keep = 1
    assert folder.set_aside_after(5) == ['10.state', '15.state']
    save(folder, 7)
    assert folder.iterations() == [7] and folder.read(7, ['net_g', 'net_d'])


@pytest.mark.parametrize(('spoil', 'message'), [
    (lambda f: f.network_path('net_d', 5).unlink(), 'net_d_5.pth, which belongs to it, is missing'),
    (lambda f: f.network_path('net_g', 5).write_bytes(b'PK'), 'net_g_5.pth is damaged, or not the network'),
    (lambda f: f.state_path(5).write_bytes(f.state_path(5).read_bytes()[:-200]), '5.state: damaged'),
    (lambda f: f.state_path(5).rename(f.state_path(7)), 'holds iteration 5'),
])  # fmt: skip
def test_incomplete_and_damaged_checkpoints_are_refused(folder, spoil, message):
    save(folder, 5)
    spoil(folder)
    with pytest.raises(DBLRError, match=message):
        folder.read(max(folder.iterations()), ['net_g', 'net_d'])


def test_state_with_newer_networks_is_refused(folder):
    """This is left by a kill between saving the networks and saving the state."""
    save(folder, 5)
    state = folder.state_path(5).read_bytes()
    save(folder, 5, value=0.5)
    folder.state_path(5).write_bytes(state)
    with pytest.raises(DBLRError, match='not the network saved with it'):
        folder.read(5, ['net_g'])


def test_checkpoints_of_basicsr_are_read(folder):
    state = {'epoch': 0, 'iter': 5, 'optimizers': [], 'schedulers': []}
    torch.save(state, folder.state_path(5))
    torch.save({'params': {'w': torch.zeros(1)}}, folder.network_path('net_g', 5))
    assert folder.read(5, ['net_g']) == state
    folder.network_path('net_g', 5).write_bytes(b'')
    with pytest.raises(DBLRError, match='net_g_5.pth'):
        folder.read(5, ['net_g'])


def test_too_little_space_is_reported_before_writing(folder):
    save(folder, 5)
    before = files(folder)
    with pytest.raises(DBLRError, match='a checkpoint needs .* GB and the disk has .* free; make room'):
        folder.check_space(2**60)
    folder.check_space(1)
    huge = torch.zeros(1).expand(2**55)  # takes no memory
    with pytest.raises(DBLRError, match='a checkpoint needs'):
        folder.save(10, {'net_g': {'params': {'w': huge}}}, {})
    assert files(folder) == before


def options(root: Path, state: Path) -> dict:
    path = {key: str(root / key) for key in ('models', 'training_states', 'visualization')}
    path |= {'experiments_root': str(root), 'log': str(root), 'resume_state': str(state)}
    return {'auto_resume': False, 'dist': False, 'network_g': {}, 'path': path}


def experiment(root: Path, **more: object) -> CheckpointFolder:
    folder = CheckpointFolder(root / 'models', root / 'training_states')
    folder.models.mkdir(parents=True)
    folder.states.mkdir()
    state = {'epoch': 0, 'iter': 5, 'optimizers': [], 'schedulers': [], **more}
    folder.save(5, {'net_g': {'params': {'w': torch.ones(9)}}}, state)
    return folder


def test_disabled_network_is_not_required(tmp_path):
    """``network_d: ~`` disables the network of a ``base``."""
    state = experiment(tmp_path).state_path(5)
    assert load_resume_state(options(tmp_path, state) | {'network_d': None})['iter'] == 5


@pytest.mark.parametrize(('saved', 'asked', 'used'), [
    ({'manual_seed': 7}, {'manual_seed': 1, 'draws_seed': True}, 7), ({'manual_seed': 7}, {'manual_seed': 1}, 1),
    ({}, {'manual_seed': 1, 'draws_seed': True}, 1),
])  # fmt: skip
def test_drawn_seed_is_kept_on_resuming(tmp_path, saved, asked, used):
    opt = options(tmp_path, experiment(tmp_path, **saved).state_path(5)) | asked
    load_resume_state(opt)
    assert opt['manual_seed'] == used


def test_automatic_resuming_begins_from_the_named_state(tmp_path, caplog):
    """A job that is queued again with the same command goes on from its own checkpoint."""
    named = experiment(tmp_path / 'old').state_path(5)
    opt = options(tmp_path / 'new', named) | {'auto_resume': True}
    assert load_resume_state(opt)['iter'] == 5 and not caplog.text
    save(CheckpointFolder(tmp_path / 'new/models', tmp_path / 'new/training_states'), 7)
    opt['path']['resume_state'] = str(named)
    assert load_resume_state(opt)['iter'] == 7
    assert f'path.resume_state, {named}, is not used: --auto_resume found' in caplog.text


class TestMoved:
    def test_moved_experiment_is_found(self, tmp_path):
        experiment(tmp_path / 'old')
        (tmp_path / 'old').rename(tmp_path / 'moved')
        opt = options(tmp_path / 'new', tmp_path / 'moved/training_states/5.state')
        assert load_resume_state(opt)['iter'] == 5
        assert opt['path']['pretrain_network_g'] == str(tmp_path / 'moved/models/net_g_5.pth')
        assert opt['path']['models'] == str(tmp_path / 'new/models')
        assert (tmp_path / 'new/models').is_dir()  # BasicSR makes folders only for new runs

    def test_networks_beside_the_state_are_found(self, tmp_path):
        folder = experiment(tmp_path / 'old')
        (tmp_path / 'kept').mkdir()
        for path in (folder.state_path(5), folder.network_path('net_g', 5)):
            path.rename(tmp_path / 'kept' / path.name)
        opt = options(tmp_path / 'new', tmp_path / 'kept/5.state')
        assert load_resume_state(opt)['iter'] == 5
        assert opt['path']['pretrain_network_g'] == str(tmp_path / 'kept/net_g_5.pth')

    def test_moved_state_uses_the_networks_of_this_experiment(self, tmp_path):
        folder = experiment(tmp_path / 'run')
        state = folder.state_path(5).rename(tmp_path / '5.state')
        opt = options(tmp_path / 'run', state)
        assert load_resume_state(opt)['iter'] == 5
        assert opt['path']['pretrain_network_g'] == str(folder.network_path('net_g', 5))

    def test_missing_networks_are_named(self, tmp_path):
        folder = experiment(tmp_path / 'run')
        folder.network_path('net_g', 5).unlink()
        with pytest.raises(DBLRError, match=r'net_g_5\.pth, which belongs to it, is missing'):
            load_resume_state(options(tmp_path / 'run', folder.state_path(5)))
