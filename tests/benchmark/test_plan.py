"""Benchmark files, and files of quoted figures: what methods are given, and every fault with its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from processes import write_options
from tiny_benchmark import tiny_benchmark

from dblr_plugin.benchmark.plan import UNSTATED, Plan, read_plan, read_quotes
from dblr_plugin.benchmark.report import total_iterations
from dblr_plugin.errors import DBLRError
from dblr_plugin.link import option_files, options_folder
from dblr_plugin.weights.shipped import find_weights


@pytest.fixture
def content(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The tiny benchmark, in a working directory that has what it names."""
    monkeypatch.chdir(tmp_path)
    for name in ('train_DBLRNet.yml', 'train_DBLRGAN.yml', 'train_DBN.yml'):
        (tmp_path / name).symlink_to(options_folder() / name)
    (tmp_path / 'quoted.yml').symlink_to(options_folder() / 'quoted_DVD.yml')
    (tmp_path / 'faulty.py').write_text('1 / 0')
    (tmp_path / 'theirs.pth').touch()
    return tiny_benchmark(footage)


def plan_of(content: dict) -> Plan:
    return read_plan(write_options(Path('tiny.yml'), content))


def refusal(content: dict) -> str:
    with pytest.raises(DBLRError) as error:
        plan_of(content)
    return str(error.value)


def line_of(text: str) -> int:
    """The line of the benchmark file that begins with this."""
    lines = Path('tiny.yml').read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.strip().startswith(text))


def test_settings_reach_the_options_the_methods_own_last(content: dict, footage: Path) -> None:
    plan = plan_of(content)
    net = plan.methods['Net'].train
    published = yaml.safe_load((options_folder() / 'train_DBLRNet.yml').read_text())
    assert net['name'] == 'tiny_Net'
    assert net['datasets']['train']['dataroot_lq'] == str(footage / 'train/lq')
    assert net['train']['total_iter'] == 60  # its own; 2 is for all
    assert net['network_g'] == published['network_g'] | {'num_feat': 8, 'num_block': 1}
    assert net['train']['optim_g'] == published['train']['optim_g']
    assert net['train']['scheduler'] == {'type': 'MultiStepLR', 'milestones': [1000]}  # replaced as a whole
    assert plan.methods['Broken'].train['train']['total_iter'] == 2


def test_tests_are_alike(content: dict) -> None:
    plan = plan_of(content)
    for method in plan.methods.values():
        metrics = {name: {'type': name} for name in ('ssim_3d', 'gradient')}
        assert method.test['val'] == {'save_img': False, 'protocol': ['basicsr', 'vrt-matlab'], 'metrics': metrics}
        assert method.test['datasets']['val']['dataroot_gt'].endswith('val/gt')
    assert plan.methods['Blurry input'].weights is None
    assert str(plan.methods['Net'].weights) == 'experiments/tiny_Net/models/net_g_latest.pth'


def test_methods_follow_those_they_start_from(content: dict) -> None:
    plan = plan_of(content)
    assert list(plan.methods) == ['Blurry input', 'Net', 'Broken', 'Theirs | with a bar']
    assert [method.name for method in plan.wanted(['Broken'])] == ['Net', 'Broken']
    with pytest.raises(DBLRError, match="--only: no method is called 'net'; did you mean 'Net'"):
        plan.wanted(['net'])


def test_a_network_without_option_file_gets_the_windows_it_takes(content: dict) -> None:
    content['methods']['FBA'] = {'network_g': {'type': 'FourierBurstAccumulation', 'num_frame': 3}}
    content['methods']['Causal'] = {'network_g': {'type': 'BlurryInput', 'causal': True}}
    edvr = {'type': 'EDVR', 'hr_in': True, 'with_predeblur': True, 'center_frame_idx': 4}
    content['methods']['Last'] = {'network_g': edvr}
    plan = plan_of(content)
    assert plan.methods['Last'].test_set['causal'] is True
    assert plan.methods['FBA'].test_set.items() >= {'num_frame': 3, 'flow': 'consistent'}.items()
    assert plan.methods['Causal'].test_set['causal'] is True


def test_weights_that_come_with_the_package_are_named(content: dict) -> None:
    content['methods']['Light'] = {'network_g': {'type': 'MultiScaleDBLRNet'}, 'weights': 'light'}
    assert plan_of(content).methods['Light'].weights == find_weights('light')


@pytest.mark.parametrize('name', ['benchmark.yml', 'benchmark_demo.yml'])
@pytest.mark.slow
def test_files_we_ship_pass(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'options').symlink_to(options_folder())
    for folder in ('DVD/train', 'DVD/test', 'demo/train', 'demo/val'):
        for side in ('lq', 'gt'):
            (tmp_path / 'datasets' / folder / side).mkdir(parents=True)
    plan = read_plan(options_folder() / name)
    iterations = {method.train['train']['total_iter'] for method in plan.methods.values() if method.train}
    assert len(plan.methods) >= 9 and len(iterations) == 1  # one budget
    _check_fair_rows(plan)


def _check_fair_rows(plan: Plan) -> None:
    """What a method is compared with differs from it in nothing but what the row is about."""
    trainings = {name: method.train for name, method in plan.methods.items() if method.train}
    behind = {name: total_iterations(plan.methods[name], plan.methods) for name in trainings}
    assert behind['DBLRNet continued'] == behind['DBLRGAN'] == 2 * behind['DBLRNet']
    continued, gan = trainings['DBLRNet continued'], trainings['DBLRGAN']
    for section in ('datasets', 'path'):
        assert gan[section].items() >= {k: v for k, v in continued[section].items() if v is not None}.items()
    assert gan['train'].items() >= continued['train'].items()
    assert _differing(trainings['DBN'], trainings['DBN with input_skip']) == {'name', 'network_g.input_skip'}
    skipping = [name for name, train in trainings.items() if train['network_g'].get('input_skip')]
    published = 'DBLRNet' if 'DBLRNet' not in skipping else 'DBLRNet as published'
    other = next(name for name in ('DBLRNet', 'DBLRNet with input_skip') if name in skipping)
    assert trainings[published]['network_g']['init_std'] == 0.01
    assert _differing(trainings[published], trainings[other]) == {'name', 'network_g.input_skip', 'network_g.init_std'}


def _differing(first: dict, second: dict, trail: str = '') -> set[str]:
    """Where two option files differ."""
    found = set()
    for key in first.keys() | second.keys():
        ours, theirs = first.get(key), second.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found |= _differing(ours, theirs, f'{trail}{key}.')
        elif ours != theirs:
            found.add(f'{trail}{key}')
    return found


def _remove(*keys: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        *path, last = keys
        for key in path:
            content = content[key]
        del content[last]

    return change


def _put(*keys: object) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        *path, last, value = keys
        for key in path:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(('change', 'line', 'message'), [
    (_put('protocol', 'basicsr'), 'protocol:', "unknown key 'protocol'; did you mean 'protocols'?"),
    (_put('protocols', ['basics']), 'protocols:', "protocols: no protocol is called 'basics'; did you mean 'basicsr'?"),
    (_put('metrics', ['ms_sim']), 'Net:', "val.metrics.ms_sim.type: no class 'ms_sim' is registered; did you mean"),
    (_put('timing', 'size', 'big'), 'size:', "timing.size is the text 'big', and must be text such as 1280x720"),
    (_put('lpips', 'alex.pth'), 'lpips:', 'lpips: alex.pth is not a file'),
    (_put('methods', {}), 'methods:', 'methods is {}, and must be keys and values with at least one method'),
    (_put('methods', 'Net', 'weigths', 'x.pth'), 'weigths:', "'methods.Net.weigths'; did you mean 'weights'?"),
    (_remove('methods', 'Net', 'options'), 'Net:', 'methods.Net needs either options'),
    (_put('methods', 'Net', 'set', 'network_g.num_feats', 8), 'network_g.num_feats:',
     "unknown key 'network_g.num_feats'; did you mean 'num_feat'?"),
    (_put('set', 'train.total_itre', 8), 'train.total_itre:', "unknown key 'train.total_itre'"),
    (_put('methods', 'Broken', 'pretrained_from', 'net'), 'pretrained_from:',
     "no method is called 'net'; did you mean 'Net'?"),
    (_put('methods', 'Broken', 'pretrained_from', 'Blurry input'), 'pretrained_from:', 'has no weights'),
    (_put('methods', 'Net', 'pretrained_from', 'Broken'), 'pretrained_from:',
     'Broken <- Net <- Broken start from each other'),
    (_put('methods', 'Blurry input', 'pretrained_from', 'Net'), 'pretrained_from:', 'is not trained'),
    (_put('methods', 'net', {'network_g': {'type': 'BlurryInput'}}), 'net:', "would share the folder net with 'Net'"),
    (_put('methods', 'Net', 'set', 'datasets.val.dataroot_lq', 'nowhere'), 'datasets.val.dataroot_lq: nowhere',
     'nowhere does not exist'),
    (_put('methods', 'Net', 'weights', 'gone.pth'), 'weights: gone', 'methods.Net.weights: gone.pth is not a file'),
    (_put('set', 'imports', ['gone.py']), 'imports:', 'imports: gone.py is not a Python file'),
    (_put('set', 'imports', ['faulty.py']), 'imports:',
     'imports: faulty.py fails: ZeroDivisionError: division by zero'),
    (_remove('methods', 'Broken', 'pretrained_from'), None, 'write pretrained_from: METHOD'),
])  # fmt: skip
def test_faults(content: dict, change: Callable, line: str | None, message: str) -> None:
    change(content)
    said = refusal(content)
    assert message in said
    if line is not None:
        assert said.startswith(f'tiny.yml:{line_of(line)}: ') or f'\n  tiny.yml:{line_of(line)}: ' in said


def test_missing_data_are_told_with_the_command_that_makes_them(content: dict) -> None:
    content['set']['datasets.train.dataroot_lq'] = 'gone'
    assert 'gone does not exist' in (said := refusal(content))
    assert said.endswith('make the footage makes it')


def test_methods_tested_on_other_data_are_refused(content: dict, footage: Path) -> None:
    content['methods']['Net']['set']['datasets.val.dataroot_lq'] = str(footage / 'val/gt')
    assert re.search(
        r"methods\.Net: datasets\.val is .*val/gt, .* for 'Blurry input'; put it into set", refusal(content)
    )


def test_all_faults_of_all_methods_are_told_at_once(content: dict) -> None:
    content['methods']['Net']['set']['network_g.num_feats'] = 8
    content['methods']['Broken']['set']['train.optim_g.lr'] = 'fast'
    content['methods']['Blurry input']['network_g']['type'] = 'BluryInput'
    said = refusal(content).splitlines()
    assert said[0] == '3 faults in the methods:' and len(said) == 4
    assert "did you mean 'BlurryInput'" in said[1]
    assert 'network_g.num_feats' in said[2] and 'train.optim_g.lr' in said[3]


SHIPPED = options_folder() / 'quoted_DVD.yml'

GOOD = """\
dataset: Mine
tables:
  first:
    source: a paper
    protocol: basicsr
    figures:
      A: {psnr: 30}
      B: {psnr: 31.5, ssim: 0.9, clips: {x: 31, y: 32}}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'quoted.yml'


@pytest.fixture(scope='module')
def tables():
    quoted = read_quotes(SHIPPED)
    assert quoted['data_set'] == 'DVD'
    return {table['name']: table for table in quoted['tables']}


class TestShippedFile:
    def test_figures_of_su_et_al(self, tables):
        (dbn,) = tables['su2017']['figures']
        assert tables['su2017']['protocol'] == 'dvd-official' and dbn['psnr'] == 30.05
        assert len(dbn['clips']) == 10 and fmean(dbn['clips'].values()) == pytest.approx(dbn['psnr'], abs=0.005)

    def test_later_figures(self, tables):
        assert tables['vrt2022']['protocol'] == 'vrt-matlab' and tables['vrt2022']['figures'][0]['psnr'] == 34.27
        collected = {figure['method']: (figure['psnr'], figure['ssim']) for figure in tables['collected']['figures']}
        assert collected['DBLRNet'] == (30.08, 0.8845) and collected['EDVR'] == (31.82, 0.916)
        assert tables['collected']['protocol'] == UNSTATED and 'UNCONFIRMED' in tables['collected']['note']

    def test_reproductions_of_dbn(self, tables):
        (theirs,), (simdeblur,) = tables['issue3']['figures'], tables['simdeblur']['figures']
        assert list(theirs['clips']) == list(tables['su2017']['figures'][0]['clips']) and theirs['ssim'] is None
        assert fmean(theirs['clips'].values()) == pytest.approx(theirs['psnr'], abs=0.005) and theirs['psnr'] == 29.85
        assert (simdeblur['psnr'], simdeblur['ssim']) == (30.84, 0.8978)
        for name in ('issue3', 'simdeblur'):  # no protocol of ours, and the note tells what is known
            assert tables[name]['protocol'] == UNSTATED and 'not stated' in tables[name]['note']

    def test_quotes_nothing_of_dblrgan(self, tables):
        """Its paper's figure was not found."""
        assert not [f for table in tables.values() for f in table['figures'] if 'GAN' in f['method']]

    def test_is_no_option_file(self):
        assert SHIPPED not in option_files()


def test_own_file(path):
    path.write_text(GOOD)
    assert read_quotes(path) == {
        'data_set': 'Mine',
        'tables': [
            {
                'name': 'first', 'source': 'a paper', 'protocol': 'basicsr', 'note': None,
                'figures': [
                    {'method': 'A', 'psnr': 30, 'ssim': None, 'clips': {}},
                    {'method': 'B', 'psnr': 31.5, 'ssim': 0.9, 'clips': {'x': 31, 'y': 32}},
                ],
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize(('old', 'new', 'message'), [
    ('dataset: Mine', 'data: Mine', ":1: unknown key 'data'; did you mean 'dataset'"),
    ('dataset: Mine\n', '', 'the file lacks dataset'),
    ('source: a paper', 'sauce: a paper', ":4: unknown key 'tables.first.sauce'; did you mean 'source'"),
    ('source: a paper', "source: ' '", ':4: tables.first.source is .* must be text that is not empty'),
    ('protocol: basicsr', 'protocol: ours', ":5: tables.first.protocol is the text 'ours', and must be text among"),
    ('    protocol: basicsr\n', '', ':3: tables.first lacks protocol'),
    ('{psnr: 30}', '{psnr: 30, year: 3}', ":7: unknown key 'tables.first.figures.A.year'; known here: clips, psnr"),
    ('{psnr: 30}', '{ssim: 0.8}', ':7: tables.first.figures.A lacks psnr'),
    ('{psnr: 30}', "{psnr: '30'}", ':7: .*psnr is the text .*remove the quotes'),
    ('{psnr: 30}', '{psnr: .inf}', ':7: .*psnr is inf'),
    ('{psnr: 30}', '30', ':7: tables.first.figures.A must hold keys and values'),
    ('ssim: 0.9', 'ssim: 90', ':8: .*ssim is 90, and must be a number from -1 to 1'),
    ('y: 32', 'y: -32', ':8: tables.first.figures.B.clips.y is -32, and must be a number of dB above 0'),
    ('tables:', 'tables: 3\nother:', ':2: tables must hold keys and values'),
])  # fmt: skip
def test_refusals(path, old, new, message):
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(DBLRError, match=message) as error:
        read_quotes(path)
    faults = str(error.value).removeprefix('2 faults in the options:\n').splitlines()
    assert all(fault.strip().startswith(str(path)) for fault in faults)


def test_no_file(path):
    with pytest.raises(DBLRError, match='no such option file'):
        read_quotes(path)
