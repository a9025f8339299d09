"""The measurements of metrics and of training steps: tiny runs. Times are never judged."""

import json

import pytest

from dblr_plugin.bench import rounds, train
from dblr_plugin.commands import main
from dblr_plugin.errors import DBLRError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(rounds, 'MIN_ROUNDS', 1)


def test_metrics(tmp_path, capsys):
    main(['bench', 'metrics', '--seconds', '0', '--json', str(tmp_path / 'figures.json')])
    lines = capsys.readouterr().out.splitlines()
    assert '1280x720' in lines[1] and lines[3].endswith('PSNR, RGB: BasicSR') and len(lines) == 3 + 8
    report = json.loads((tmp_path / 'figures.json').read_text())
    assert report['schema'] == 'dblr_bench_metrics/1' and report['size'] == [720, 1280]
    for way in report['ways'].values():
        assert abs(way['difference']) < 1e-6
        assert way['ratio'] == pytest.approx(report['ways'][way['baseline']]['median_ms'] / way['median_ms'])


def test_training(monkeypatch, tmp_path, capsys):
    small = {'batch': 1, 'crop': 32, 'num_feat': 4}
    monkeypatch.setattr('dblr_plugin.commands.bench.measure_training', lambda s, full: train.measure(s, **small))
    main(['bench', 'train', '--seconds', '0', '--json', str(tmp_path / 'figures.json')])
    assert "BasicSR's SRGANModel, fp32" in capsys.readouterr().out
    report = json.loads((tmp_path / 'figures.json').read_text())
    assert report['schema'] == 'dblr_bench_train/1' and report['batch'] == [1, 5, 32, 32]
    assert list(report['models']) == ['DBLRNet', 'DBLRGAN']
    for model in report['models'].values():
        assert model['gflop'] > 0 and model['ways']['basicsr']['ratio'] == 1
        assert list(model['ways']) == ['basicsr', 'fp32', 'bf16', 'bf16, channels_last']


def test_a_place_that_is_not_there(tmp_path):
    with pytest.raises(DBLRError, match='is not a folder; create it first'):
        main(['bench', 'metrics', '--json', str(tmp_path / 'no/figures.json')])
