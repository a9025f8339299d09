"""Intact inputs of every kind, made once."""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from cases import Desk
from processes import dblr
from shared import made_once
from supplies import write_checkout, write_databases, write_layout, write_videos


class Supplies(dict[str, Path]):
    """Intact inputs; data sets in their published layouts are made on first use."""

    def __init__(self, request: pytest.FixtureRequest, made: dict[str, Path]) -> None:
        super().__init__(made)
        self._request = request

    def __missing__(self, name: str) -> Path:
        picture = next((self['clips'] / 'lq/a').iterdir())
        self[name] = made_once(self._request, f'layout_{name}', partial(write_layout, name, picture))
        return self[name]


@pytest.fixture(scope='session')
def supplies(request: pytest.FixtureRequest, footage: Path) -> Supplies:
    """Intact inputs, except those made by training."""
    return Supplies(request, made_once(request, 'supplies', partial(_write_supplies, footage)))


def _write_supplies(footage: Path, root: Path) -> dict[str, Path]:
    from dblr_plugin.archs import DBLRNet

    torch.manual_seed(0)
    torch.save({'params': DBLRNet(num_feat=16, num_block=1, input_skip=True).state_dict()}, root / 'net.pth')
    shutil.copytree(footage / 'train', root / 'clips')
    return {
        'clips': root / 'clips',
        'net': root / 'net.pth',
        **write_databases(root / 'clips', root / 'databases'),
        **write_videos(root / 'videos'),
        **write_checkout(root / 'checkout'),
    }


@pytest.fixture
def desk(
    request: pytest.FixtureRequest, tmp_path: Path, supplies: dict[str, Path], train_options: dict, test_options: dict
) -> Desk:
    """A folder for a case, with options of a small network; the first batch of a training has all windows."""
    train_options['datasets']['train'] |= {'gt_size': 48, 'batch_size_per_gpu': 8, 'dataset_enlarge_ratio': 1}
    train_options['train']['total_iter'] = 1
    train_options['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': 1, 'use_tb_logger': False}
    desk = Desk(tmp_path, supplies, {'train': train_options, 'test': test_options})
    if 'experiment' not in supplies:
        supplies |= made_once(request, 'trained', partial(_train, desk))
    return desk


def _train(desk: Desk, root: Path) -> dict[str, Path]:
    """Makes ``experiment`` and ``other_experiment``: trainings of one iteration with different seeds."""
    for name, seed in (('experiment', 0), ('other_experiment', 1)):
        result = dblr(*desk.train(changes={'name': name, 'manual_seed': seed}), cwd=root)
        assert result.returncode == 0, result.stderr
    (desk.inputs / 'options.yml').unlink()
    return {name: root / 'experiments' / name for name in ('experiment', 'other_experiment')}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the outcomes for full and read-only disks and for damaged files."""
    reports = [report for found in ('passed', 'failed') for report in terminalreporter.getreports(found)]
    properties = [entry for report in reports for entry in report.user_properties]
    outcomes = sorted(value for name, value in properties if name == 'outcome')
    if outcomes:
        terminalreporter.section('outcomes by command and disk: exit code and what was said')
        for head, said in outcomes:
            terminalreporter.write_line(head + said)
    damaged = [value for name, value in properties if name == 'damaged']
    if damaged:
        terminalreporter.section('outcomes of damaged files')
        for place in (0, 1):  # by kind of file, by damage
            counts = Counter((value[place], value[2]) for value in damaged)
            for name in sorted({name for name, _ in counts}):
                ends = ', '.join(f'{number} {end}' for (of, end), number in sorted(counts.items()) if of == name)
                terminalreporter.write_line(f'{name:<20}{ends}')
