import json
import logging

import pytest

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.scores import ValidationRecord


def figures(**mean: float) -> list[dict]:
    return [{'protocol': 'basicsr', 'mean': mean, 'clip_mean': mean, 'frame_mean': mean, 'clips': {'a': mean}}]


@pytest.fixture
def path(tmp_path):
    record = ValidationRecord(tmp_path / 'metrics.json', {'lpips': {'better': 'lower'}})
    for iteration, psnr, lpips in ((5, 27.0, 0.3), (10, 29.0, 0.1), (15, 28.0, 0.2)):
        record.add('V', figures(psnr=psnr, lpips=lpips), iteration, None)
    assert record.best['V'] == {
        'psnr': {'better': 'higher', 'val': 29.0, 'iter': 10},
        'lpips': {'better': 'lower', 'val': 0.1, 'iter': 10},
    }
    return tmp_path / 'metrics.json'


def test_the_best_of_the_iteration_resumed_from_counts(path):
    """BasicSR saves before it validates: the state of iteration 10 knows of iteration 5 alone."""
    record = ValidationRecord(path, {'lpips': {'better': 'lower'}})
    record.resume({'V': {'psnr': {'better': 'higher', 'val': 27.0, 'iter': 5}}}, 10)
    assert record.best['V']['psnr'] == {'better': 'higher', 'val': 29.0, 'iter': 10}
    record.resume({'V': {'psnr': {'better': 'higher', 'val': 27.0, 'iter': 5}}}, 9)
    assert record.best['V']['psnr']['iter'] == 5
    assert record.has('V', 10) and not record.has('V', 12) and not record.has('W', 10)


def test_figures_made_again_replace_the_earlier_ones(path):
    ValidationRecord(path, None).add('V', figures(psnr=30.0), 10, None)
    assert [(e['iter'], e['mean']['psnr']) for e in json.loads(path.read_text())] == [(5, 27.0), (15, 28.0), (10, 30.0)]


def test_what_is_damaged_is_named(path):
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DBLRError, match='metrics.json: damaged .*; fix it, or move it away'):
        ValidationRecord(path, None).has('V', 5)


def test_the_log_has_every_clip(path, caplog):
    with caplog.at_level(logging.INFO):
        ValidationRecord(path, None).add('W', figures(psnr=30.0), 10, None)
    assert 'Validation W (protocol basicsr)' in caplog.text and 'a: 30.0000' in caplog.text


def test_the_blurry_input_stands_beside_the_result(path, caplog):
    blurry = {'mean': {'psnr': 27.5}, 'clips': {'a': {'psnr': 27.25}}}
    with caplog.at_level(logging.INFO):
        ValidationRecord(path, None).add('W', [figures(psnr=30.0)[0] | {'input': blurry}], 10, None)
    assert 'psnr: 30.0000\tBest: 30.0000 @ 10 iter\tBlurry input: 27.5000' in caplog.text
    assert 'a: 30.0000 (blurry input 27.2500)' in caplog.text


class TestInTraining:
    """A report that cannot be written does not end an overnight training; a test is for its report."""

    @pytest.mark.parametrize('spoil', [
        lambda path: (path.unlink(), path.mkdir()), lambda path: path.write_text('[{'),
        lambda path: path.write_text('[1, 2]'), lambda path: path.write_text('{"dataset": "V"}'),
        lambda path: path.write_text('[{"dataset": "V", "iter": 5, "protocol": "basicsr", "mean": {"psnr": [3]}}]'),
    ])  # fmt: skip
    def test_goes_on_without_the_file(self, path, caplog, spoil):
        spoil(path)
        record = ValidationRecord(path, None, lenient=True)
        record.resume({}, 10)
        record.add('V', figures(psnr=30.0), 20, None)
        assert record.best['V']['psnr']['val'] == 30.0 and not record.has('V', 20)
        assert 'metrics.json' in caplog.text and 'training goes on' in caplog.text
        with pytest.raises(DBLRError, match=r'metrics\.json'):
            ValidationRecord(path, None).add('V', figures(psnr=30.0), 20, None)

    @pytest.mark.parametrize('best', [
        None, 3, [], {'V': 3}, {'V': {'psnr': 3}}, {'V': {'psnr': {'val': 3.0}}},
        {'V': {'psnr': {'better': 'higher', 'val': 'x', 'iter': 5}}},
    ])  # fmt: skip
    def test_damaged_best_figures_of_a_state_are_made_anew(self, path, caplog, best):
        record = ValidationRecord(path, None, lenient=True)
        record.resume(best, 10)
        assert record.best['V']['psnr'] == {'better': 'higher', 'val': 29.0, 'iter': 10}
        assert 'are damaged' in caplog.text

    def test_infinity_is_read_back(self, path):
        record = ValidationRecord(path, None)
        record.add('W', figures(psnr=float('inf')), 10, None)
        record = ValidationRecord(path, None)
        record.resume({}, 10)
        record.add('W', figures(psnr=30.0), 20, None)
        assert record.best['W']['psnr'] == {'better': 'higher', 'val': float('inf'), 'iter': 10}
