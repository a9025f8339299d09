"""``base``: an option file that contains only the differences from another."""

import sys
from pathlib import Path

import pytest
import yaml
from processes import dblr, write_options

from dblr_plugin import hooks
from dblr_plugin.errors import DBLRError
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.yaml_file import read_option_file


@pytest.fixture
def child(train_options: dict, tmp_path: Path) -> Path:
    """An option file in another folder than its base, which has a base itself."""
    write_options(tmp_path / 'first.yml', train_options)
    (tmp_path / 'second.yml').write_text('base: first.yml\nmanual_seed: 7\n')
    (tmp_path / 'own').mkdir()
    path = tmp_path / 'own/third.yml'
    path.write_text('base: ../second.yml\nname: third\nlogger: {print_freq: 3}\n')
    return path


def test_own_values_replace_those_of_the_base(child, train_options):
    train_options['logger']['print_freq'] = 3
    assert check_option_file(child, is_train=True) == train_options | {'name': 'third', 'manual_seed': 7}


def test_section_with_another_type_replaces_the_whole_section(child):
    child.write_text(child.read_text() + 'train: {scheduler: {type: PlateauLR}}\n')
    options = read_option_file(child).plain()
    assert options['train']['scheduler'] == {'type': 'PlateauLR'} and 'optim_g' in options['train']


def test_a_data_set_of_the_base_can_be_left_out(child):
    child.write_text(child.read_text() + 'datasets: {val: ~}\n')
    assert [*check_option_file(child, is_train=True)['datasets']] == ['train']
    child.write_text(child.read_text().replace('val: ~', 'train: ~'))
    with pytest.raises(DBLRError, match='datasets lacks train'):
        check_option_file(child, is_train=True)


def test_faults_name_the_file_that_contains_them(child):
    base = child.parents[1] / 'first.yml'
    base.write_text(base.read_text().replace('total_iter', 'total_iters'))
    line = next(n for n, text in enumerate(base.read_text().splitlines(), 1) if 'total_iters' in text)
    with pytest.raises(DBLRError, match=f"first.yml:{line}: unknown key 'train.total_iters'"):
        check_option_file(child, is_train=True)
    child.write_text(child.read_text().replace('third', '3'))
    base.write_text(base.read_text().replace('total_iters', 'total_iter'))
    with pytest.raises(DBLRError, match='third.yml:2: name is 3'):
        check_option_file(child, is_train=True)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('base: nowhere.yml', 'own.yml:1: base: there is no file .*nowhere.yml; paths start in the folder of own.yml'),
        ('base: own.yml', 'own.yml:1: base: .*own.yml is itself based on this file'),
        ('base: other.yml', 'other.yml:1: base: .*own.yml is itself based on this file'),
        ('base: [a]', 'own.yml:1: base must name an option file'),
        ('base: broken.yml', 'broken.yml:1: not valid YAML'),
    ],
)
def test_invalid_base_is_refused(tmp_path, text, message):
    (tmp_path / 'other.yml').write_text('base: own.yml')
    (tmp_path / 'broken.yml').write_text('name: [')
    (tmp_path / 'own.yml').write_text(text)
    with pytest.raises(DBLRError, match=message):
        check_option_file(tmp_path / 'own.yml', is_train=True)


@pytest.mark.slow
def test_copy_in_the_results_is_complete(child, train_options, tmp_path):
    """It can be used without its base."""
    child.write_text(child.read_text() + 'train: {total_iter: 1}\n')
    result = dblr('train', '-opt', child, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / 'experiments/third/third.yml').read_text()
    train_options['logger']['print_freq'] = 3
    train_options['train']['total_iter'] = 1
    assert yaml.safe_load(text) == train_options | {'name': 'third', 'manual_seed': 7}
    assert text.startswith('# GENERATE TIME')


def test_copy_can_be_trained_from(train_options, tmp_path, monkeypatch):
    """To resume its run, and for a new one, which archives its folder before it copies the file."""
    run = tmp_path / 'experiments/net'
    run.mkdir(parents=True)
    path = write_options(run / 'train.yml', train_options)
    path.write_text('\ufeff' + path.read_text())  # as some editors do
    scheduler = 'train.scheduler={type: PlateauLR,\n window: 3}'
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(path), '--set', 'num_gpu=0', scheduler])
    hooks.parse_options(str(tmp_path))
    hooks.copy_opt_file(str(path), str(run))
    assert yaml.safe_load(path.read_text()) == train_options
    run.rename(tmp_path / 'experiments/net_archived')
    run.mkdir()
    hooks.copy_opt_file(str(path), str(run))
    assert yaml.safe_load(path.read_text()) == train_options


def test_only_rank_0_writes_the_copy(child, tmp_path, monkeypatch):
    """The folder may not exist yet, and never exists on other machines."""
    monkeypatch.setattr('basicsr.utils.dist_util.get_dist_info', lambda: (1, 2))
    hooks.copy_opt_file(str(child), str(tmp_path / 'experiments/third'))
    assert not (tmp_path / 'experiments').exists()
