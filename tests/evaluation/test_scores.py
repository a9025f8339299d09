"""Means, tables and validation records of scores."""

import json
import logging
import math

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS, with_metrics
from dblr_plugin.evaluation.scores import ValidationRecord, format_table, score_frame, summarise, write_json

ROWS = [
    (name, clip, metric, value)
    for name in ('basicsr', 'cdvd-tsp')
    for clip, values in {'a': [30.0, 32.0, 34.0], 'b': [20.0]}.items()
    for psnr in values
    for metric, value in (('psnr', psnr), ('ssim', psnr / 100))
]


def test_clip_and_frame_means_are_computed():
    by_clips, by_frames = summarise(ROWS, [PROTOCOLS['basicsr'], PROTOCOLS['cdvd-tsp'], PROTOCOLS['luma']])
    for entry in (by_clips, by_frames):
        assert entry['clips'] == {'a': {'psnr': 32, 'ssim': 0.32}, 'b': {'psnr': 20, 'ssim': 0.2}}
        assert entry['frames'] == {'a': 3, 'b': 1}
        assert entry['clip_mean'] == {'psnr': 26, 'ssim': pytest.approx(0.26)}
        assert entry['frame_mean'] == {'psnr': 29, 'ssim': pytest.approx(0.29)}
    assert (by_clips['protocol'], by_clips['mean']) == ('basicsr', by_clips['clip_mean'])
    assert (by_frames['protocol'], by_frames['mean']) == ('cdvd-tsp', by_frames['frame_mean'])


@pytest.mark.filterwarnings('error')
def test_frame_with_nan_scores_nan():
    """A training that diverges was validated with the PSNR of black frames."""
    restored, sharp = np.full((16, 16, 3), 90, np.float32), np.full((16, 16, 3), 100, np.uint8)
    restored[3, 4, 0] = math.nan
    rows = list(score_frame([PROTOCOLS['basicsr'], PROTOCOLS['luma']], 'a', '0', (restored, sharp)))
    assert [row[:3] for row in rows] == [(p, 'a', m) for p in ('basicsr', 'luma') for m in ('psnr', 'ssim')]
    assert all(math.isnan(value) for *_, value in rows)


def test_nan_spreads_to_the_next_frame_only_where_both_are_compared():
    """Scores depended on the number of processes, as only the frame before a process's first one was left out."""
    frame = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    before = np.full(frame.shape, math.nan, np.float32), frame
    both = with_metrics([PROTOCOLS['luma']], {'warping_error': {'type': 'warping_error'}})
    rows = list(score_frame([PROTOCOLS['basicsr'], *both], 'a', '1', (frame.astype(np.float32), frame), before))
    assert {name for name, *_, value in rows if math.isnan(value)} == {'luma'}


def test_table_has_clips_and_both_means():
    entry = summarise(ROWS, [PROTOCOLS['cdvd-tsp']])[0]
    lines = format_table(entry).splitlines()
    assert lines[0] == f'protocol cdvd-tsp: {PROTOCOLS["cdvd-tsp"].meaning}'
    assert [line.split() for line in lines[1:]] == [
        ['clip', 'frames', 'PSNR', 'SSIM'],
        ['a', '3', '32.0000', '0.3200'],
        ['b', '1', '20.0000', '0.2000'],
        ['clip', 'mean', '4', '26.0000', '0.2600'],
        ['frame', 'mean', '*', '4', '29.0000', '0.2900'],
    ]


def test_table_keeps_digits_of_small_scores():
    rows = [('luma', 'a', 'warping_error', 4.21349e-5), ('luma', 'a', 'brightness', 1234567.5)]
    head, line = (line.split() for line in format_table(summarise(rows, [PROTOCOLS['luma']])[0]).splitlines()[1:3])
    assert dict(zip(head, line, strict=True)) == {
        'clip': 'a', 'frames': '1', 'WARPING_ERROR': '4.213e-05', 'BRIGHTNESS': '1234567.5000',
    }  # fmt: skip


def test_infinity_is_written_as_valid_json(tmp_path):
    entry = summarise([('luma', 'a', 'psnr', math.inf), ('luma', 'a', 'psnr', 30.0)], [PROTOCOLS['luma']])[0]
    path = tmp_path / 'figures.json'
    write_json(path, [entry, (math.nan,)])

    def refuse(constant: str) -> None:
        raise AssertionError(f'{constant} is not JSON')

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read[0]['mean'] == {'psnr': 'inf'} and read[1] == ['nan']
    assert format_table(read[0]) == format_table(entry)


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / 'figures.json'
    write_json(path, {'psnr': 30.0})
    with pytest.raises(TypeError):
        write_json(path, {'psnr': object()})
    assert json.loads(path.read_text()) == {'psnr': 30}
    assert [p.name for p in tmp_path.iterdir()] == ['figures.json']


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


def test_best_score_includes_the_iteration_resumed_from(path):
    """BasicSR saves before it validates, so the state of iteration 10 has only the scores of iteration 5."""
    record = ValidationRecord(path, {'lpips': {'better': 'lower'}})
    record.resume({'V': {'psnr': {'better': 'higher', 'val': 27.0, 'iter': 5}}}, 10)
    assert record.best['V']['psnr'] == {'better': 'higher', 'val': 29.0, 'iter': 10}
    assert record.has('V', 10) and not record.has('V', 12) and not record.has('W', 10)


def test_scores_of_a_training_that_is_given_up_are_removed(path):
    """Otherwise they would be the best of the training that goes on from before, when it is resumed in turn."""
    for iteration in (9, 20):
        record = ValidationRecord(path, None)
        record.resume({'V': {'psnr': {'better': 'higher', 'val': 27.0, 'iter': 5}}}, iteration)
        assert record.best['V']['psnr']['iter'] == 5
    assert [entry['iter'] for entry in json.loads(path.read_text())] == [5]


def test_repeated_scores_replace_the_earlier_ones(path):
    ValidationRecord(path, None).add('V', figures(psnr=30.0), 10, None)
    assert [(e['iter'], e['mean']['psnr']) for e in json.loads(path.read_text())] == [(5, 27.0), (15, 28.0), (10, 30.0)]


def test_damaged_file_is_named(path):
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DBLRError, match='metrics.json: damaged .*; fix it, or move it away'):
        ValidationRecord(path, None).has('V', 5)


def test_log_lists_every_clip(path, caplog):
    with caplog.at_level(logging.INFO):
        ValidationRecord(path, None).add('W', figures(psnr=30.0), 10, None)
    assert 'Validation W (protocol basicsr)' in caplog.text and 'a: 30.0000' in caplog.text


def test_log_has_scores_of_the_blurry_input(path, caplog):
    blurry = {'mean': {'psnr': 27.5}, 'clips': {'a': {'psnr': 27.25}}}
    with caplog.at_level(logging.INFO):
        ValidationRecord(path, None).add('W', [figures(psnr=30.0)[0] | {'input': blurry}], 10, None)
    assert 'psnr: 30.0000\tBest: 30.0000 @ 10 iter\tBlurry input: 27.5000' in caplog.text
    assert 'a: 30.0000 (blurry input 27.2500)' in caplog.text


def test_log_of_a_test_has_no_best(path, caplog):
    with caplog.at_level(logging.INFO):
        ValidationRecord(path, None).add('W', figures(psnr=30.0), 'test_DBLRNet', None)
    assert 'psnr: 30.0000' in caplog.text and 'Best' not in caplog.text and 'iter' not in caplog.text


def test_clip_may_lack_a_score(path, caplog):
    """A clip of one frame has no warping error, and neither has its blurry input."""
    rows = [('basicsr', clip, 'psnr', 30.0) for clip in 'ab'] + [('basicsr', 'a', 'warping_error', 0.002)]
    entry = summarise(rows, [PROTOCOLS['basicsr']])[0]
    entry['input'] = {key: entry[key] for key in ('mean', 'clips')}
    board = SummaryWriter(path.parent)
    with caplog.at_level(logging.INFO):
        ValidationRecord(path, None).add('W', [entry], 10, board)
    board.close()
    of_warping = caplog.text.split('# warping_error: ')[1]
    assert of_warping.startswith('2.000e-03') and 'a: 2.000e-03 (blurry' in of_warping and ' b: ' not in of_warping
    assert 'b: 30.0000 (blurry input 30.0000)' in caplog.text


def test_nan_is_never_best(path):
    record = ValidationRecord(path, None)
    for iteration, psnr in enumerate((math.nan, 27.0, math.nan)):
        record.add('W', figures(psnr=psnr), iteration, None)
    assert record.best['W']['psnr'] == {'better': 'higher', 'val': 27.0, 'iter': 1}


class TestInTraining:
    """A record that cannot be read or written does not stop a training, but it does stop a test."""

    @pytest.mark.parametrize('spoil', [
        lambda path: (path.unlink(), path.mkdir()), lambda path: path.write_text('[{'),
        lambda path: path.write_text('[1, 2]'), lambda path: path.write_text('{"dataset": "V"}'),
        lambda path: path.write_text('[{"dataset": "V", "iter": 5, "protocol": "basicsr", "mean": {"psnr": [3]}}]'),
    ])  # fmt: skip
    def test_training_continues_if_the_file_cannot_be_used(self, path, caplog, spoil):
        spoil(path)
        record = ValidationRecord(path, None, lenient=True)
        record.resume({}, 10)
        record.add('V', figures(psnr=30.0), 20, None)
        assert record.best['V']['psnr']['val'] == 30.0 and not record.has('V', 20)
        assert 'metrics.json' in caplog.text and 'training continues' in caplog.text
        with pytest.raises(DBLRError, match=r'metrics\.json'):
            ValidationRecord(path, None).add('V', figures(psnr=30.0), 20, None)

    def test_infinity_is_read_back(self, path):
        record = ValidationRecord(path, None)
        record.add('W', figures(psnr=float('inf')), 10, None)
        record = ValidationRecord(path, None)
        record.resume({}, 10)
        record.add('W', figures(psnr=30.0), 20, None)
        assert record.best['W']['psnr'] == {'better': 'higher', 'val': float('inf'), 'iter': 10}
