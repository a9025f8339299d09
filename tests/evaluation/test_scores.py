import json
import math

import pytest

from dblr_plugin.evaluation.protocols import PROTOCOLS
from dblr_plugin.evaluation.scores import format_table, summarise, write_json

ROWS = [
    (name, clip, metric, value)
    for name in ('basicsr', 'cdvd-tsp')
    for clip, values in {'a': [30.0, 32.0, 34.0], 'b': [20.0]}.items()
    for psnr in values
    for metric, value in (('psnr', psnr), ('ssim', psnr / 100))
]


def test_both_means_and_the_protocols_own():
    by_clips, by_frames = summarise(ROWS, [PROTOCOLS['basicsr'], PROTOCOLS['cdvd-tsp'], PROTOCOLS['luma']])
    for entry in (by_clips, by_frames):
        assert entry['clips'] == {'a': {'psnr': 32, 'ssim': 0.32}, 'b': {'psnr': 20, 'ssim': 0.2}}
        assert entry['frames'] == {'a': 3, 'b': 1}
        assert entry['clip_mean'] == {'psnr': 26, 'ssim': pytest.approx(0.26)}
        assert entry['frame_mean'] == {'psnr': 29, 'ssim': pytest.approx(0.29)}
    assert (by_clips['protocol'], by_clips['mean']) == ('basicsr', by_clips['clip_mean'])
    assert (by_frames['protocol'], by_frames['mean']) == ('cdvd-tsp', by_frames['frame_mean'])


def test_table():
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


def test_infinity_is_valid_json_and_comes_back(tmp_path):
    entry = summarise([('luma', 'a', 'psnr', math.inf), ('luma', 'a', 'psnr', 30.0)], [PROTOCOLS['luma']])[0]
    path = tmp_path / 'figures.json'
    write_json(path, [entry, (math.nan,)])

    def refuse(constant: str) -> None:
        raise AssertionError(f'{constant} is not JSON')

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read[0]['mean'] == {'psnr': 'inf'} and read[1] == ['nan']
    assert format_table(read[0]) == format_table(entry)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'figures.json'
    write_json(path, {'psnr': 30.0})
    with pytest.raises(TypeError):
        write_json(path, {'psnr': object()})
    assert json.loads(path.read_text()) == {'psnr': 30}
    assert [p.name for p in tmp_path.iterdir()] == ['figures.json']
