"""``dblr doctor -opt``: every fault of an option file, its data and its weights, with the cure."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from breakage import faults
from processes import write_options

from dblr_plugin.data.lmdb_writer import write_lmdb
from dblr_plugin.data.tiles.writer import write_tiles
from dblr_plugin.doctor import NOTE, OK
from dblr_plugin.doctor.data import find_data, find_file, find_options, find_output, find_weights


@pytest.fixture
def own_footage(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage, in the working directory."""
    shutil.copytree(footage, tmp_path / 'footage')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'footage'


@pytest.fixture
def own_options(train_options: dict, own_footage: Path) -> dict:
    """Training on that copy: blurry clips from a tile database, sharp ones from LMDB, validation from folders."""
    write_tiles(own_footage / 'train/lq', own_footage / 'train_lq.lmdb', progress=False)
    write_lmdb(own_footage / 'train/gt', own_footage / 'train_gt.lmdb', progress=False)
    train_options['datasets']['train'] |= {
        'dataroot_lq': 'footage/train_lq.lmdb',
        'dataroot_gt': 'footage/train_gt.lmdb',
    }
    train_options['datasets']['val'] |= {'dataroot_lq': 'footage/val/lq', 'dataroot_gt': 'footage/val/gt'}
    return train_options


def file(options: dict) -> str:
    return str(write_options(Path('options.yml'), options))


def test_all_is_well(own_options):
    path = file(own_options)
    found = [f for look in (find_file, find_options, find_data, find_weights, find_output) for f in look(path)]
    assert {finding.level for finding in found} == {OK}
    text = '\n'.join(finding.text for finding in found)
    assert 'footage/train_lq.lmdb (tiles), 2 clips, 16 frames; a/00000000 decoded, 48x48' in text
    assert 'footage/train_gt.lmdb (LMDB), 2 clips, 16 frames' in text
    assert 'footage/val/lq (folder), 2 clips, 12 frames' in text
    assert 'train: every frame is whole and in its place; 8 samples' in text


def test_clips_without_ground_truth(test_options, own_footage):
    del test_options['datasets']['test']['dataroot_gt']
    found = list(find_data(file(test_options)))
    assert [finding.level for finding in found] == [OK, OK]


class TestFile:
    @pytest.mark.parametrize(
        'text, words',
        [
            ('name: [', 'is not valid YAML'),
            ('name: x', 'lacks datasets and path'),
            ('- name', 'start from one of the files in options/'),
        ],
    )
    def test_unusable(self, tmp_path, text, words):
        path = tmp_path / 'x.yml'
        path.write_text(text)
        assert words in faults(find_file(str(path)))

    def test_missing(self):
        assert 'nowhere.yml cannot be read (No such file or directory)' in faults(find_file('nowhere.yml'))

    def test_more_gpus_than_there_are(self, own_options):
        own_options['num_gpu'] = 99
        assert 'set num_gpu: auto' in faults(find_options(file(own_options)))


class TestData:
    def test_missing_folder(self, own_options):
        own_options['datasets']['val']['dataroot_lq'] = 'nowhere'
        said = faults(find_data(file(own_options)))
        assert said.startswith('val: dataroot_lq: nowhere does not exist')
        assert f'relative paths start at {Path.cwd()}' in said and 'dblr prepare --help' in said

    def test_both_sides_are_looked_at(self, own_options):
        own_options['datasets']['val'] |= {'dataroot_lq': 'nowhere', 'dataroot_gt': 'nowhere.lmdb'}
        said = faults(find_data(file(own_options)))
        assert 'val: dataroot_lq: nowhere does not exist' in said and 'val: dataroot_gt: nowhere.lmdb is not' in said

    @pytest.mark.parametrize('keep', [0, 100, 5000])
    def test_damaged_lmdb(self, own_options, keep):
        database = Path('footage/train_gt.lmdb/data.mdb')
        database.write_bytes(database.read_bytes()[:keep])
        said = faults(find_data(file(own_options)))
        assert said.startswith('train: dataroot_gt: footage/train_gt.lmdb') and 'write it again' in said
        assert said.count('\n') == 1, 'one fault, one cure'

    def test_truncated_frame(self, own_options):
        frame = Path('footage/val/gt/w/00000004.png')
        frame.write_bytes(frame.read_bytes()[:-200])
        said = faults(find_data(file(own_options)))
        assert said == f'val: {frame} is truncated\nreplace it with an intact copy'

    def test_clips_that_do_not_pair(self, own_options):
        shutil.rmtree('footage/val/gt/w')
        Path('footage/val/gt/v/00000002.png').unlink()
        said = faults(find_data(file(own_options)))
        assert "clip 'w' of footage/val/lq is missing" in said and "frame 'v/00000002'" in said

    def test_data_set_of_basicsr(self, own_options):
        own_options['datasets']['val'] = {'name': 'R', 'type': 'REDSDataset', 'dataroot_lq': 'footage/val/lq'}
        found = list(find_data(file(own_options)))
        assert found[-1].level == NOTE and 'REDSDataset is not a data set of the plugin' in found[-1].text
        own_options['datasets']['val']['dataroot_lq'] = 'nowhere'
        assert 'val: dataroot_lq: nowhere does not exist' in faults(find_data(file(own_options)))

    def test_no_options(self, own_options):
        own_options['datasets']['val'] = None
        assert 'val: the section is empty' in faults(find_data(file(own_options)))


class TestWeights:
    def test_missing(self, own_options):
        own_options['path']['pretrain_network_g'] = 'experiments/net/models/net_g_latest.pth'
        said = faults(find_weights(file(own_options)))
        assert 'no such checkpoint' in said and 'train that network first, or set pretrain_network_g: ~' in said

    def test_damaged(self, own_options):
        Path('net.pth').write_bytes(b'PK\3\4' + bytes(100))
        own_options['path']['pretrain_network_g'] = 'net.pth'
        assert 'pretrain_network_g: net.pth: damaged' in faults(find_weights(file(own_options)))

    def test_whole(self, own_options):
        torch.save({'params': {'x': torch.zeros(2)}}, 'net.pth')
        own_options['path']['pretrain_network_g'] = 'net.pth'
        (finding,) = find_weights(file(own_options))
        assert (finding.level, finding.text) == (OK, 'pretrain_network_g: net.pth can be read')


def test_output_that_cannot_be_written(own_options, test_options):
    Path('experiments').write_text('a file')
    said = faults(find_output(file(own_options)))
    assert 'experiments/ cannot be made or written to' in said and 'set path.experiments_root' in said
    own_options['path']['experiments_root'] = 'elsewhere'
    assert not faults(find_output(file(own_options)))
    assert not faults(find_output(file(test_options))), 'a test writes to results'


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU that can be used')
def test_the_program_reports_all_of_it_at_once(doctor, broken, own_options):
    """With a driver beside which torch finds no GPU."""
    (broken / 'nvidia-smi').write_text('#!/bin/sh\n')
    (broken / 'nvidia-smi').chmod(0o755)
    own_options['datasets']['val']['dataroot_lq'] = 'nowhere'
    own_options['logger']['print_frequency'] = own_options['logger'].pop('print_freq')
    own_options['path']['pretrain_network_g'] = 'x.pth'
    Path('footage/train_gt.lmdb/data.mdb').write_bytes(b'')
    result = doctor('-opt', file(own_options), PATH=f'{broken}{os.pathsep}{os.environ["PATH"]}')
    assert result.returncode == 1
    for words in (
        f'{broken}/nvidia-smi',
        'update the driver' if torch.version.cuda else 'install a build for CUDA',
        'print_frequency',
        'nowhere does not exist',
        'footage/train_gt.lmdb cannot be opened as an LMDB database',
        'x.pth: no such checkpoint',
        'loader workers: not checked, as there is a fault in data',
    ):
        assert words in result.stdout
    assert result.stdout.splitlines()[-1].startswith('5 faults, ')


@pytest.mark.slow
def test_the_program_finds_nothing_wrong(doctor, own_options):
    """Neither with this environment nor with options; more workers than processors are only noted."""
    own_options['datasets']['train']['num_worker_per_gpu'] = 10**4
    path = file(own_options)
    result = doctor('-opt', path)
    assert (result.returncode, result.stderr) == (0, ''), result.stdout
    assert 'FAULT' not in result.stdout
    for words in (
        f'ok     torch {torch.__version__.split("+")[0]}',
        'registered, model: DBLRGANModel, VideoDeblurModel',
        'torchvision.ops.deform_conv2d runs on cpu',
        'gloo starts',
        f'dblr_plugin.train -opt {path}' if torch.cuda.device_count() > 1 else f'dblr train -opt {path}',
        'a worker (fork) has read 4 samples',
        'a worker (spawn) has read 4 samples',
        'num_worker_per_gpu is 10000',
    ):
        assert words in result.stdout
    assert result.stdout.splitlines()[-1].startswith('0 faults, ')
