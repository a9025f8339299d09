"""``--set``, ``--force_yml`` and ``--protocol``: their positions, what they set, and how their faults are reported.

Also tests the table that ``dblr test`` prints at the end.
"""

import json
import re
import sys

import pytest
import yaml
from changes import changed
from processes import dblr, write_options

from dblr_plugin import hooks
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.yaml_file import Override, take_overrides

SET, FORCE, PROTOCOL = '--set', '--force_yml', '--protocol'


@pytest.mark.parametrize(('argv', 'overrides'), [
    ([], []),
    ([SET, 'a=1'], [(SET, 'a=1')]),
    ([SET + '=a.b=c=d'], [(SET, 'a.b=c=d')]),
    ([SET, 'a=1', 'b=-1', '--auto_resume', SET, 'c=3'], [(SET, 'a=1'), (SET, 'b=-1'), (SET, 'c=3')]),
    ([FORCE, 'a:b=1', SET, 'a.b=2', FORCE, 'a:b=3'], [(FORCE, 'a:b=1'), (SET, 'a.b=2'), (FORCE, 'a:b=3')]),
    ([PROTOCOL, 'vrt-matlab', FORCE, 'a=1', 'b=2'], [(PROTOCOL, 'vrt-matlab'), (FORCE, 'a=1'), (FORCE, 'b=2')]),
    ([FORCE, 'a=1', PROTOCOL + '=vrt-matlab', 'b=2'], [(PROTOCOL, 'vrt-matlab'), (FORCE, 'a=1'), (FORCE, 'b=2')]),
    ([SET, 'a=1', 'b=2', PROTOCOL, 'vrt-matlab'], [(PROTOCOL, 'vrt-matlab'), (SET, 'a=1'), (SET, 'b=2')]),
])  # fmt: skip
def test_overrides_are_removed_from_any_position(argv, overrides):
    ours = [Override(*override) for override in overrides]
    rest = [a for a in argv if a == '--auto_resume']
    assert take_overrides([*argv, '-opt', 'a.yml']) == (ours, [*rest, '-opt', 'a.yml'])
    assert take_overrides(['-opt', 'a.yml', *argv]) == (ours, ['-opt', 'a.yml', *rest])


def checked(tmp_path, options: dict, *settings: str, option: str = SET, is_train: bool = True) -> dict:
    path = write_options(tmp_path / 'options.yml', options)
    return check_option_file(path, is_train, [Override(option, setting) for setting in settings])


@pytest.mark.parametrize(('setting', 'trail', 'value'), [
    ('train.optim_g.lr=1e-5', 'train.optim_g.lr', 1e-5),
    ('train.optim_g.lr=1', 'train.optim_g.lr', 1),
    ('train.warmup_iter=-1', 'train.warmup_iter', -1),
    ('train.optim_g.betas=[0.5, 0.9]', 'train.optim_g.betas', [0.5, 0.9]),
    ('train.freeze_bn=true', 'train.freeze_bn', True),
    ('path.resume_state=a=b.state', 'path.resume_state', 'a=b.state'),
    ('path.pretrain_network_g=null', 'path.pretrain_network_g', None),
    ('path.pretrain_network_g=None', 'path.pretrain_network_g', None),
    ('path.pretrain_network_g=~', 'path.pretrain_network_g', None),
    ('path.pretrain_network_g=', 'path.pretrain_network_g', None),
    (' name = another ', 'name', 'another'),
    ("name='2024'", 'name', '2024'),
    ('dist_params.timeout=60', 'dist_params', {'timeout': 60}),
    ('logger.wandb.project=p', 'logger.wandb', {'project': 'p'}),
    ('train.scheduler={type: PlateauLR, factor: 0.5}', 'train.scheduler', {'type': 'PlateauLR', 'factor': 0.5}),
    ('val.metrics=null', 'val.metrics', None),
])  # fmt: skip
def test_set_equals_the_value_in_the_file(gan_options, tmp_path, setting, trail, value):
    assert checked(tmp_path, gan_options, setting) == changed(gan_options, trail, value)


@pytest.mark.parametrize(('setting', 'trail', 'value'), [
    ('train:total_iter=100', 'train.total_iter', 100),
    ('train:optim_g:lr=!!float 1e-3', 'train.optim_g.lr', 1e-3),
    ('train:scheduler:milestones=[10,20]', 'train.scheduler.milestones', [10, 20]),
    ('path:pretrain_network_g=~', 'path.pretrain_network_g', None),
    ('path:pretrain_network_g=none', 'path.pretrain_network_g', None),
    ('val:save_img=True', 'val.save_img', True),
])  # fmt: skip
def test_force_yml_equals_the_value_in_the_file(gan_options, tmp_path, setting, trail, value):
    assert checked(tmp_path, gan_options, setting, option=FORCE) == changed(gan_options, trail, value)


def test_later_settings_win_and_empty_sections_are_filled(train_options, tmp_path):
    train_options['val']['metrics'] = None
    found = checked(tmp_path, train_options, 'train.total_iter=1', 'val.metrics.p={type: calculate_psnr}',
                    'val.metrics.p.crop_border=4', 'train.total_iter=2')  # fmt: skip
    assert found['train']['total_iter'] == 2
    assert found['val']['metrics'] == {'p': {'type': 'calculate_psnr', 'crop_border': 4}}


def test_setting_changes_only_one_of_two_aliased_sections(gan_options, tmp_path):
    gan_options['train']['optim_d'] = gan_options['train']['optim_g']  # PyYAML writes an alias
    found = checked(tmp_path, gan_options, 'train.optim_g.lr=0.5')
    assert '*id' in (tmp_path / 'options.yml').read_text()
    assert (found['train']['optim_g']['lr'], found['train']['optim_d']['lr']) == (0.5, 1e-3)


@pytest.mark.parametrize(('setting', 'message'), [
    ('train.optim_g.lr', r'write --set KEY=VALUE'),
    ('=1', r'write --set KEY=VALUE'),
    ('train..lr=1', r'write --set KEY=VALUE'),
    ('train.optim_g.lr=abc', r"train.optim_g.lr is the text 'abc', and must be a number from 0"),
    ('train.optimg.lr=1', r"unknown key 'train.optimg'; did you mean 'optim_g'\?"),
    ('train.total_iter=1.5', r'train.total_iter is 1.5, and must be a whole number from 1'),
    ('train.total_iter.x=1', r'train.total_iter holds no keys; set train.total_iter itself'),
    ('train.scheduler.milestones.0=1', r'train.scheduler.milestones holds no keys'),
    ('train.optim_g.betas=[0.9', r'not valid YAML: '),
    ('train.scheduler=null', r'train.scheduler lacks type'),
    ('model_type=SRModel', r'model_type SRModel is not one of dblr_plugin'),
])  # fmt: skip
def test_faults_name_the_setting(train_options, tmp_path, setting, message):
    with pytest.raises(DBLRError) as error:
        checked(tmp_path, train_options, setting)
    assert re.match(f'--set {re.escape(setting)}: {message}', str(error.value)), str(error.value)


def test_option_without_a_value_is_refused():
    with pytest.raises(DBLRError, match='--set: expected at least one argument'):
        take_overrides(['-opt', 'a.yml', '--set'])


@pytest.mark.parametrize(('option', 'message'), [
    (SET, '--set: SRModel of .*options.yml is not one of dblr_plugin; use --force_yml'),
    (PROTOCOL, '--protocol: SRModel of .*options.yml scores by val.metrics alone; leave it out'),
])  # fmt: skip
def test_overrides_are_refused_for_other_models(tmp_path, option, message):
    with pytest.raises(DBLRError, match=message):
        checked(tmp_path, {'model_type': 'SRModel'}, 'vrt-matlab=', option=option)
    assert checked(tmp_path, {'model_type': 'SRModel'}, 'faulty', option=FORCE) is None


def parsed(monkeypatch, tmp_path, options: dict, *arguments: str) -> dict:
    """Returns the options that BasicSR parses from a training's command line."""
    path = write_options(tmp_path / 'options.yml', options)
    argv = ['train', '-opt', str(path), *arguments]
    monkeypatch.setattr('sys.argv', [*argv])
    opt, args = hooks.parse_options(str(tmp_path), is_train=True)
    assert sys.argv == argv and args.opt == str(path)
    return opt


def test_basicsr_gets_the_checked_options(train_options, tmp_path, monkeypatch):
    opt = parsed(monkeypatch, tmp_path, train_options, SET, 'train.optim_g.lr=1e-5', 'name=n', PROTOCOL, 'vrt-matlab')
    assert opt['train']['optim_g']['lr'] == 1e-5 and opt['val']['protocol'] == 'vrt-matlab'
    assert opt['path']['models'] == str(tmp_path / 'experiments/n/models')
    assert yaml.safe_load((tmp_path / 'options.yml').read_text()) == train_options


def test_run_is_written_to_the_roots_of_its_file(train_options, tmp_path, monkeypatch):
    """BasicSR 1.4.2 ignores ``experiments_root``, and cannot create a folder for an empty ``results_root``."""
    monkeypatch.setenv('DISK', str(tmp_path / 'disk'))
    train_options['path'] |= {'experiments_root': '$DISK', 'results_root': None}
    path = parsed(monkeypatch, tmp_path, train_options, SET, 'path.pretrain_network_g=light')['path']
    assert {path[key] for key in ('experiments_root', 'log')} == {str(tmp_path / 'disk/net')}
    assert path['training_states'] == str(tmp_path / 'disk/net/training_states')
    assert 'results_root' not in path and path['pretrain_network_g'].endswith('light.safetensors')


def test_debug_needs_no_val_section(train_options, tmp_path, monkeypatch):
    opt = parsed(monkeypatch, tmp_path, train_options, SET, 'val=null', 'name=debug')
    assert 'val' not in opt and opt['logger']['save_checkpoint_freq'] == 8


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_launcher_that_did_not_start_the_process_is_refused(train_options, tmp_path, monkeypatch, launcher):
    with pytest.raises(DBLRError, match=f'--launcher {launcher} needs processes started by (torchrun|srun)'):
        parsed(monkeypatch, tmp_path, train_options, f'--launcher={launcher}')


def test_srun_without_the_launcher_option_is_reported(train_options, tmp_path, monkeypatch, caplog):
    for process, count in (('0', 0), ('1', 1)):  # sbatch, too, sets it to 0
        monkeypatch.setenv('SLURM_PROCID', process)
        parsed(monkeypatch, tmp_path, train_options)
        assert caplog.text.count('srun started several processes; each is a run of its own') == count


def test_basicsr_parses_the_options_of_its_own_models(train_options, tmp_path, monkeypatch):
    """The syntax with colons, the types and the errors are BasicSR's."""
    options = train_options | {'model_type': 'SRModel', 'anything': {'at': 'all'}}
    opt = parsed(monkeypatch, tmp_path, options, FORCE, 'anything:at=1.5', 'train:optim_g:lr=1e-5')
    assert opt['anything'] == {'at': 1.5} and opt['train']['optim_g']['lr'] == '1e-5'
    with pytest.raises(ValueError):
        parsed(monkeypatch, tmp_path, options, FORCE, 'anything')


@pytest.mark.slow
def test_training_uses_the_settings(train_options, tmp_path):
    """1e-4 in the file and 2e-4 on the command line are read as learning rates; the run's copy records the command."""
    path = write_options(tmp_path / 'train.yml', train_options)
    path.write_text(path.read_text().replace('lr: 0.001', 'lr: 1e-4'))
    command = ['train', '--set', 'train.total_iter=2', 'logger.print_freq=1', '-opt', path]
    for name, settings, rate in (('a', [], '1.000e-04'), ('b', ['--force_yml', 'train:optim_g:lr=2e-4'], '2.000e-04')):
        result = dblr(*command, '--set', f'name={name}', *settings, cwd=tmp_path, processes=2)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count(f'lr:({rate}') == 2, result.stderr
        kept = (tmp_path / f'experiments/{name}/train.yml').read_text()
        assert re.search(rf'# .*--set train.total_iter=2 logger.print_freq=1 -opt .* --set name={name}', kept)


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one_in_all_protocols(test_options, tmp_path):
    """Scores are bit-identical, and the table is printed once."""
    path = write_options(tmp_path / 'test.yml', test_options)
    command = ['test', '-opt', path, '--force_yml', 'val:pbar=false', '--protocol', 'all']
    entries = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        result = dblr(*command, cwd=folder, processes=processes)
        assert result.returncode == 0, result.stderr
        entries.append(json.loads((folder / 'results/tested/metrics.json').read_text()))
        for entry in entries[-1]:
            title = f'V, protocol {entry["protocol"]}: {PROTOCOLS[entry["protocol"]].meaning}'
            assert result.stdout.count(title) == 1
            assert f'{entry["frame_mean"]["psnr"]:.4f}' in result.stdout
    assert entries[0] == entries[1] and [e['protocol'] for e in entries[0]] == list(PROTOCOLS)


@pytest.mark.slow
def test_unknown_protocol_is_refused(test_options, tmp_path):
    path = write_options(tmp_path / 'test.yml', test_options)
    result = dblr('test', '-opt', path, '--protocol', 'lume', cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert (
        "dblr: error: --protocol lume: val.protocol cannot be used: no protocol is called 'lume'; did you mean"
        in result.stderr
    )
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize(('change', 'message'), [
    ({'model_type': 'SRModel'}, 'SRModel of .* scores by val.metrics alone'),
    ({'val': None}, 'has no val section'),
])  # fmt: skip
def test_protocol_is_refused_where_it_has_no_effect(train_options, tmp_path, monkeypatch, change, message):
    path = write_options(tmp_path / 'train.yml', train_options | change)
    monkeypatch.setattr('sys.argv', ['train', '-opt', str(path), '--protocol', 'vrt-matlab'])
    with pytest.raises(DBLRError, match=message):
        hooks.parse_options(str(tmp_path), is_train=True)
