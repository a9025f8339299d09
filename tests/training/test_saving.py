import os

import pytest
import torch

from dblr_plugin.errors import DBLRError
from dblr_plugin.training.checkpoint_folder import CheckpointFolder


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


def test_latest_is_the_newest_pair_and_takes_no_room(folder):
    for iteration in (5, 10):
        save(folder, iteration)
    for name in ('net_g', 'net_d'):
        latest = folder.network_path(name, 'latest')
        assert latest.samefile(folder.network_path(name, 10))
    assert folder.read(10, ['net_g', 'net_d'])['iter'] == 10


def test_latest_is_a_copy_where_there_are_no_links(folder, monkeypatch):
    def refuse(*args):
        raise OSError('no links here')

    monkeypatch.setattr(os, 'link', refuse)
    save(folder, 5)
    latest = folder.network_path('net_g', 'latest')
    assert latest.read_bytes() == folder.network_path('net_g', 5).read_bytes()


def test_older_ones_are_pruned(folder):
    folder.keep = 2
    for iteration in (5, 10, 15, 100):
        save(folder, iteration)
    assert files(folder) == sorted(
        [f'{i}.state' for i in (15, 100)] + [f'net_{n}_{i}.pth' for n in 'dg' for i in (15, 100, 'latest')]
    )


@pytest.mark.parametrize(('spoil', 'message'), [
    (lambda f: f.network_path('net_d', 5).unlink(), 'net_d_5.pth, which belongs to it, is missing'),
    (lambda f: f.network_path('net_g', 5).write_bytes(b'PK'), 'net_g_5.pth is damaged, or not the network'),
    (lambda f: f.state_path(5).write_bytes(f.state_path(5).read_bytes()[:-200]), '5.state: damaged'),
    (lambda f: f.state_path(5).rename(f.state_path(7)), 'holds iteration 5'),
])  # fmt: skip
def test_what_does_not_belong_together_is_refused(folder, spoil, message):
    save(folder, 5)
    spoil(folder)
    with pytest.raises(DBLRError, match=message):
        folder.read(max(folder.iterations()), ['net_g', 'net_d'])


def test_networks_saved_anew_before_their_state_are_no_pair(folder):
    """As when a run that was resumed from an older checkpoint is killed between the two."""
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


def test_too_little_space_is_told_before_writing(folder):
    save(folder, 5)
    before = files(folder)
    with pytest.raises(DBLRError, match='a checkpoint needs .* GB and the disk has .* free; make room'):
        folder.check_space(2**60)
    folder.check_space(1)
    huge = torch.zeros(1).expand(2**55)  # takes no memory
    with pytest.raises(DBLRError, match='a checkpoint needs'):
        folder.save(10, {'net_g': {'params': {'w': huge}}}, {})
    assert files(folder) == before
