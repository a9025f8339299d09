"""The measurement of reading: a tiny run prints its table and writes valid JSON. No times are checked."""

from pathlib import Path

import data
import frames
import pytest
from tile_images import encode, picture

from dblr_plugin.errors import DBLRError

WAYS = [
    'basicsr_lmdb_png', 'basicsr_folder_png', 'folder', 'folder_y', 'lmdb', 'tiles', 'tiles_y', 'ram',
    'basicsr_whole_png', 'whole_png', 'whole_tiles',
]  # fmt: skip


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch):
    monkeypatch.setattr(data, 'TURN', 0)


@pytest.fixture
def roots(tmp_path) -> list[str]:
    for side in ('lq', 'gt'):
        for number in range(7):
            suffix, content = encode(picture(140, 150, number), 'jpeg 4:2:0')
            path = tmp_path / side / 'my clip' / f'frame_{number}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return [str(tmp_path / 'lq'), str(tmp_path / 'gt')]


def test_own_clips_are_measured(roots, bench):
    report = bench('data', *roots)
    (figures,) = report['sets']
    assert figures['origin'].startswith("clip 'my clip'") and (figures['frames'], figures['size']) == (7, [140, 150])
    assert list(figures['ways']) == WAYS
    for way in figures['ways'].values():
        assert 0 < way['min_ms'] <= way['median_ms'] <= way['max_ms'] and len(way['rounds_ms']) == 1
        assert way['ratio'] == pytest.approx(figures['ways'][way['baseline']]['median_ms'] / way['median_ms'])
    assert figures['ways']['folder']['bytes_ratio'] == 1 and figures['ways']['ram']['bytes'] is None
    # five blurry frames and a sharp one in float32; Y is a third of that
    copying = 2 * 6 * 3 * 128 * 128 * 4 / figures['limits']['memory']['speed'] / 1e6
    for name, part in (('folder', 1), ('tiles_y', 1 / 3)):
        way = figures['ways'][name]
        assert way['share'] == pytest.approx(part * copying / way['median_ms'])


@pytest.mark.parametrize('footage', [True, False])
def test_generated_frames_are_measured(footage, bench, monkeypatch, tmp_path):
    monkeypatch.setattr(frames, 'FRAMES', 5)
    monkeypatch.setattr(frames, 'SIZE', (160, 144))
    if not footage:
        monkeypatch.setattr('sysconfig.get_path', lambda name: str(tmp_path))
    jpg, png = bench('data')['sets']
    assert jpg['origin'].endswith(', jpg') and png['origin'].endswith(', png')
    assert jpg['frames'] == png['frames'] == 5 and jpg['size'] == png['size'] == [144, 160]
    assert ('moving texture' in png['origin']) == (not footage)


def test_missing_folder_and_too_few_frames_are_refused(roots, bench):
    with pytest.raises(DBLRError, match='both folders'):
        bench('data', roots[0])
    for root in roots:
        for path in list(Path(root).glob('*/*'))[4:]:
            path.unlink()
    with pytest.raises(DBLRError):
        bench('data', *roots)
