"""The measurements of metrics, training steps and validations: tiny runs. No times are checked."""

from functools import partial

import frames
import metrics
import pytest
import train
import validation
from jsonschema import ValidationError

from dblr_plugin.errors import DBLRError


def is_consistent(ways: dict[str, dict]) -> bool:
    return all(
        0 < way['min_ms'] <= way['median_ms'] <= way['max_ms']
        and way['ratio'] == pytest.approx(ways[way['baseline']]['median_ms'] / way['median_ms'])
        for way in ways.values()
    )


def shares_are_of_limits(gflop: float, ways: dict[str, dict], limits: dict[str, dict]) -> bool:
    for name, way in ways.items():
        precision = way.get('precision') or ('bf16' if 'bf16' in name else 'fp32')
        limit = max(limits[f'{kind} {precision}']['speed'] for kind in ('matrix', 'convolution'))
        if way['share'] != pytest.approx(gflop / way['median_ms'] * 1000 / limit):
            return False
    return True


def test_metrics_are_measured(monkeypatch, bench, fits_schema):
    monkeypatch.setattr(frames, 'SIZE', (160, 96))
    report = bench('metrics')
    assert report['size'] == [96, 160] and is_consistent(report['ways'])
    assert all(abs(way['difference']) < 1e-6 for way in report['ways'].values())
    assert report['ways']['psnr_rgb']['value'] > 20
    del report['ways']['psnr_rgb']['value']
    with pytest.raises(ValidationError, match='value'):
        fits_schema(report)


@pytest.mark.slow
def test_training_steps_are_measured(monkeypatch, bench):
    monkeypatch.setattr(train, 'measure', partial(train.measure, crop=32, num_feat=4))
    report = bench('train', '--batch', '1')
    assert report['batch'] == [1, 5, 32, 32] and list(report['models']) == ['DBLRNet', 'DBLRGAN']
    for model in report['models'].values():
        assert list(model['ways']) == ['basicsr', 'fp32', 'bf16', 'bf16, channels_last']
        assert model['gflop'] > 0 and is_consistent(model['ways'])
        assert shares_are_of_limits(model['gflop'], model['ways'], report['limits'])


@pytest.mark.slow
def test_validation_is_measured(monkeypatch, bench):
    # OpenVINO has its own tests, and crashes some processes (tests/speed/test_speed_inference.py)
    monkeypatch.setattr(validation, '_OURS', {'ours': {}, 'bf16': {'precision': 'bf16'}})
    measure = validation.measure
    tiny = {'type': 'MultiScaleDBLRNet', 'num_feat': [4], 'num_block': [1]}
    monkeypatch.setattr(validation, 'measure', lambda seconds, *_: measure(seconds, (64, 48), 6, tiny))
    report = bench('validation')
    assert (report['frames'], report['size']) == (6, [48, 64])
    ways = report['ways']
    assert list(ways) == ['basicsr', 'ours', 'bf16'] and is_consistent(ways)
    assert shares_are_of_limits(report['gflop'], ways, report['limits'])
    # BasicSR sums in float32
    assert abs(ways['ours']['psnr_difference']) < 1e-5 and abs(ways['ours']['ssim_difference']) < 1e-6
    assert 1e-5 < abs(ways['bf16']['psnr_difference']) < 0.1
    assert ways['basicsr']['psnr'] > 20 and ways['bf16']['precision'] == 'bf16'


def test_missing_output_folder_is_refused(tmp_path):
    with pytest.raises(DBLRError, match='cannot be written; name a file in a folder that exists'):
        metrics.main(['--json', str(tmp_path / 'no/figures.json')])
