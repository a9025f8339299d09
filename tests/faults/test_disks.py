"""Every command on full, read-only and filling disks: one line names the disk, and no incomplete output is left.

pytest prints a table of the outcomes at its end.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from benchmark.tiny_benchmark import tiny_benchmark
from cases import Desk
from disks import Disk, refusing_disk
from processes import Run, dblr, write_options

from dblr_plugin import commands

pytestmark = pytest.mark.slow

OPTIONS = Path(__file__).resolve().parents[2] / 'options'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / 'disk').mkdir()
    with refusing_disk(tmp_path / 'disk') as disk:
        yield disk


def train(desk: Desk, disk: Path) -> list[object]:
    changes = {'logger.use_tb_logger': True, 'train.total_iter': 3, 'val.val_freq': 1, 'val.save_img': True}
    return desk.train(changes=changes)


def resume(desk: Desk, disk: Path) -> list[object]:
    shutil.copytree(desk.supplies['experiment'], disk / 'experiments/experiment')
    return [*desk.train(changes={'name': 'experiment', 'train.total_iter': 3}), '--auto_resume']


def score(desk: Desk, disk: Path) -> list[object]:
    return desk.test(changes={'val.save_img': True})


def evaluate(desk: Desk, disk: Path) -> list[object]:
    return ['evaluate', desk.clips / 'lq', desk.clips / 'gt', '--json', disk / 'figures.json']


def export_pth(desk: Desk, disk: Path) -> list[object]:
    return ['export', '-o', disk / 'net.pth']


def export_safetensors(desk: Desk, disk: Path) -> list[object]:
    return ['export', '-o', disk / 'net.safetensors']


def export_onnx(desk: Desk, disk: Path) -> list[object]:
    return ['export', '--weights', 'light', '-o', disk / 'net.onnx']


def prepare_layout(desk: Desk, disk: Path) -> list[object]:
    return ['prepare', 'dvd-qualitative', desk.supplies['dvd-qualitative'], disk / 'made', '--copy']


def prepare_databases(desk: Desk, disk: Path) -> list[object]:
    return ['prepare', 'dvd-qualitative', desk.supplies['dvd-qualitative'], disk / 'made', '--lmdb', '--tiles']


def prepare_video(desk: Desk, disk: Path) -> list[object]:
    return ['prepare', 'video', desk.supplies['video.mp4'], disk / 'made', '--average', '3']


def prepare_motion(desk: Desk, disk: Path) -> list[object]:
    (desk.inputs / 'pictures').mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    cv2.imwrite(str(desk.inputs / 'pictures/noise.png'), cv2.GaussianBlur(picture, (0, 0), 1.2))
    return ['prepare', 'motion', desk.inputs / 'pictures', disk / 'made', '--windows', '260', '--size', '16']


def prepare_lmdb(desk: Desk, disk: Path) -> list[object]:
    return ['prepare', 'lmdb', desk.clips / 'lq', disk / 'made.lmdb']


def prepare_tiles(desk: Desk, disk: Path) -> list[object]:
    return ['prepare', 'lmdb', desk.clips / 'lq', disk / 'made.lmdb', '--tiles']


def link(desk: Desk, disk: Path) -> list[object]:
    shutil.copytree(desk.supplies['checkout'], disk / 'checkout')
    return ['link', disk / 'checkout']


def benchmark(desk: Desk, disk: Path) -> list[object]:
    plan = tiny_benchmark(desk.supplies['clips'].parent)
    plan['set'] |= {key: str(desk.supplies['clips'] / key[-2:]) for key in plan['set'] if '.dataroot_' in key}
    plan['methods'] = {name: plan['methods'][name] for name in ('Blurry input', 'Net')}
    plan['methods']['Net']['set']['train.total_iter'] = 2
    del plan['quoted'], plan['timing']
    (disk / 'train_DBLRNet.yml').symlink_to(OPTIONS / 'train_DBLRNet.yml')
    return ['benchmark', '-opt', write_options(desk.inputs / 'plan.yml', plan)]


#: Commands, and the kB that are left on a disk that fills while they work: enough to pass their first check.
COMMANDS = {
    train: 800, resume: 800, score: 40, evaluate: None, export_pth: 1000, export_safetensors: 1000, export_onnx: None,
    prepare_layout: 400, prepare_databases: None, prepare_video: None, prepare_motion: None, prepare_lmdb: None,
    prepare_tiles: None, link: 40, benchmark: 60,
}  # fmt: skip
#: Commands that write below their working directory.
_HERE = (train, resume, score, benchmark)


@pytest.mark.parametrize('state', ['full', 'read_only', 'fills'])
@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.__name__)
def test_refusing_disk_is_reported_in_one_line(
    command: Callable[[Desk, Path], list[object]], state: str, desk: Desk, disk: Disk, record_property
) -> None:
    if state == 'fills' and COMMANDS[command] is None:
        pytest.skip('it looks at the free space first, or writes one file as another command does')
    arguments = command(desk, disk.folder)
    disk.become(str(COMMANDS[command]) if state == 'fills' else state)
    result = dblr(*arguments, cwd=disk.folder if command in _HERE else desk.cwd, timeout=120)
    errors = [line for line in result.stderr.splitlines() if 'error: ' in line]
    record_property('outcome', (f'{command.__name__:<20}{state:<11}{result.returncode}  ', ' | '.join(errors)))
    assert 'Traceback' not in result.stdout + result.stderr, result.stderr[-3000:]
    assert result.returncode == 1, result.stderr[-3000:]
    assert len(errors) == 1 and ('disk/' in errors[0] or 'error: benchmarks/' in errors[0] or 'disk: ' in errors[0])
    assert not disk.remains()


def test_training_continues_if_reports_cannot_be_written(desk: Desk, disk: Disk, record_property) -> None:
    """The disk of log, scores, images and TensorBoard is full, but not that of the checkpoints."""
    run = disk.folder / 'experiments/experiment'
    shutil.copytree(desk.supplies['experiment'], run)
    for name in ('models', 'training_states'):
        shutil.move(run / name, desk.cwd / name)
        (run / name).symlink_to(desk.cwd / name)
    changes = {'name': 'experiment', 'train.total_iter': 3, 'val.val_freq': 1, 'val.save_img': True}
    arguments = desk.train(changes=changes | {'logger.use_tb_logger': True})
    disk.become('full')
    result = dblr(*arguments, '--auto_resume', cwd=disk.folder)
    told = [line for line in result.stderr.splitlines() if 'ERROR' in line]
    record_property('outcome', (f'{"train, reports only":<20}{"full":<11}{result.returncode}  ', f'{len(told)} lines'))
    assert result.returncode == 0 and 'Traceback' not in result.stdout + result.stderr, result.stderr[-3000:]
    assert torch.load(desk.cwd / 'models/net_g_3.pth', weights_only=True)
    assert 'options.yml could not be written: the disk is full' in result.stderr
    for what in ('.log could not', 'tb_logger', 'metrics.json could not', 'visualization'):
        assert any(what in line and 'disk is full' in line for line in told), (what, told)
    assert sum('.log could not' in line or 'tb_logger' in line for line in told) == 2  # each once


def main() -> None:
    """Runs the command with its standard output on a full disk."""
    os.dup2(os.open('/dev/full', os.O_WRONLY), 1)
    sys.stdout = open(1, 'w', closefd=False)  # noqa: SIM115  (until the process ends)
    commands.main()


def test_full_disk_for_standard_output_is_reported(desk: Desk) -> None:
    run = Run('evaluate', desk.clips / 'lq', desk.clips / 'gt', cwd=desk.cwd, program='test_disks')
    assert run.wait() != 0
    assert 'Traceback' not in run.stderr and 'disk is full' in run.stderr, run.stderr


def test_error_of_two_processes_is_reported_once(desk: Desk, disk: Disk) -> None:
    arguments = desk.train(changes={'datasets.train.dataset_enlarge_ratio': 2})
    disk.become('read_only')
    result = dblr(*arguments, cwd=disk.folder, processes=2)
    assert result.returncode == 1 and result.stderr.count('the file system is read-only') == 1, result.stderr
    assert 'Traceback' not in result.stderr and len(result.stderr.splitlines()) < 4, result.stderr
