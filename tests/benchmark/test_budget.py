"""What trainings were given: of the settled options, of all processes, and only where it is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from processes import write_options
from tiny_benchmark import tiny_benchmark

from dblr_plugin.benchmark import training
from dblr_plugin.benchmark.methods import Method
from dblr_plugin.benchmark.plan import read_plan
from dblr_plugin.benchmark.record import keep, sha256
from dblr_plugin.benchmark.report import kept_rates, total_iterations, training_budget
from dblr_plugin.errors import DBLRError
from dblr_plugin.link import options_folder

NET = 'train_DBLRNet.yml'  # batches of 4, at 1e-4


def settled(footage: Path, methods: dict[str, dict]) -> dict[str, Method]:
    """These methods in the tiny benchmark, whose batches are of 2."""
    content = {**tiny_benchmark(footage), 'methods': methods, 'quoted': None}
    return read_plan(write_options(Path('tiny.yml'), content)).methods


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NET).symlink_to(options_folder() / NET)
    (tmp_path / 'theirs.pth').touch()


@pytest.mark.slow
def test_a_budget_is_what_was_run_and_not_what_the_option_file_says(footage: Path) -> None:
    methods = settled(footage, {'Net': {'options': NET, 'set': {'train.total_iter': 7, 'train.optim_g.lr': 3e-4}}})
    budget = training_budget(methods['Net'], {'processes': 4, 'seconds': 9.0})
    assert budget == {
        'iterations': 7, 'batch': 8, 'lr': 3e-4, 'crop': 32, 'starts_from': None, 'seconds': 9.0,
    }  # fmt: skip
    assert training_budget(methods['Net'], None) is None  # not run


@pytest.mark.parametrize(('processes', 'batch'), [((2, 2), 4), ((2, 1), None), ((2, 1, 1), None)])
def test_a_batch_that_changed_on_the_way_is_not_told(
    footage: Path, monkeypatch: pytest.MonkeyPatch, processes: tuple[int, ...], batch: int | None
) -> None:
    net = settled(footage, {'Net': {'options': NET}})['Net']
    for path in (net.weights, net.folder.train_log):
        path.parent.mkdir(parents=True)
    python = Path('python')  # what trainings are run by: one that stops until there is what it is to write
    python.write_text(f'#!/bin/sh\ncp weights {net.weights}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(python.absolute()))
    for number in processes[:-1]:
        with pytest.raises(DBLRError, match='training failed: cp: .*weights'):
            training.train(net, number)
        assert training.trained(net) is None
    Path('weights').write_bytes(b'weights')
    training.train(net, processes[-1])
    assert training_budget(net, training.trained(net))['batch'] == batch


def test_other_validations_need_no_new_training(footage: Path) -> None:
    net = settled(footage, {'Net': {'options': NET}})['Net']
    net.weights.parent.mkdir(parents=True)
    net.weights.write_bytes(b'weights')
    keep(net.folder.training, training._fingerprint(net), {'sha256': sha256(net.weights)})
    for section, change, is_kept in (('val', {'protocol': 'luma'}, True), ('train', {'total_iter': 9}, False)):
        changed = replace(net, train={**net.training, section: {**net.training[section], **change}})
        assert (training.trained(changed) is not None) == is_kept


def test_iterations_are_counted_from_the_first_weights_on(footage: Path) -> None:
    methods = settled(footage, {
        'Net': {'options': NET, 'set': {'train.total_iter': 7}},
        'Again': {'options': NET, 'set': {'train.total_iter': 5}, 'pretrained_from': 'Net'},
        'Thrice': {'options': NET, 'set': {'train.total_iter': 3}, 'pretrained_from': 'Again'},
    })  # fmt: skip
    assert [total_iterations(methods[name], methods) for name in ('Net', 'Again', 'Thrice')] == [7, 12, 15]


def test_iterations_behind_a_bare_checkpoint_are_unknown(footage: Path) -> None:
    methods = settled(footage, {
        'Theirs': {'options': NET, 'weights': 'theirs.pth'},
        'From theirs': {'options': NET, 'pretrained_from': 'Theirs'},
        'From a file': {'options': NET, 'set': {'path.pretrain_network_g': 'theirs.pth'}},
    })  # fmt: skip
    assert [total_iterations(method, methods) for method in methods.values()] == [None, None, None]
    assert training_budget(methods['Theirs'], {}) is None
    assert training_budget(methods['From theirs'], {'processes': 1, 'seconds': 1.0})['batch'] == 2


@pytest.mark.slow
def test_who_keeps_the_rate_of_another_batch_is_named(footage: Path) -> None:
    rate, batch = 'train.optim_g.lr', 'datasets.train.batch_size_per_gpu'
    methods = settled(footage, {
        'Kept': {'options': NET},
        'Written out': {'options': NET, 'set': {rate: 1e-4}},  # the option file's own
        'Rate too': {'options': NET, 'set': {rate: 5e-5}},
        'Whole optimiser': {'options': NET, 'set': {'train.optim_g': {'type': 'Adam', 'lr': 5e-5}}},
        'Its batch': {'options': NET, 'set': {batch: 4}},
    })  # fmt: skip
    assert kept_rates(list(methods.values())).endswith(': Kept (4 to 2), Written out (4 to 2).')
    assert kept_rates([methods['Rate too'], methods['Its batch']]) is None
