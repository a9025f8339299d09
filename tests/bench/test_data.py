"""The measurement of reading: a tiny run prints its table and writes valid JSON. Times are never judged."""

import json
from pathlib import Path

import pytest
from tile_images import encode, picture

from dblr_plugin.bench import data, frames
from dblr_plugin.commands import main
from dblr_plugin.errors import DBLRError

WAYS = [
    'basicsr_lmdb_png', 'basicsr_folder_png', 'folder', 'folder_y', 'lmdb', 'tiles', 'tiles_y', 'ram',
    'basicsr_whole_png', 'whole_png', 'whole_tiles',
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'temporary'))
    monkeypatch.setattr(data, 'TURN', 0)
    monkeypatch.setattr(data, 'MIN_ROUNDS', 1)
    yield
    assert list((tmp_path / 'temporary').iterdir()) == [], 'temporary stores are left'


@pytest.fixture
def roots(tmp_path) -> list[str]:
    for side in ('lq', 'gt'):
        for number in range(7):
            suffix, content = encode(picture(140, 150, number), 'jpeg 4:2:0')
            path = tmp_path / side / 'my clip' / f'frame_{number}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return [str(tmp_path / 'lq'), str(tmp_path / 'gt')]


def bench(*arguments: str) -> None:
    main(['bench', 'data', *arguments, '--seconds', '0'])


def test_own_clips(roots, tmp_path, capsys):
    bench(*roots, '--json', str(tmp_path / 'figures.json'))
    lines = capsys.readouterr().out.splitlines()
    assert "clip 'my clip'" in lines[1] and '7 pairs of 150x140' in lines[1]
    assert len(lines) == 3 + len(WAYS) and lines[3].endswith("BasicSR's REDSDataset, LMDB of PNG")
    report = json.loads((tmp_path / 'figures.json').read_text())
    assert list(report) == ['schema', 'machine', 'versions', 'commit', 'method', 'sets']
    (figures,) = report['sets']
    assert list(figures['ways']) == WAYS
    for way in figures['ways'].values():
        assert 0 < way['min_ms'] <= way['median_ms'] <= way['max_ms'] and len(way['rounds_ms']) >= 1
        assert way['ratio'] == pytest.approx(figures['ways'][way['baseline']]['median_ms'] / way['median_ms'])
    assert figures['ways']['folder']['bytes_ratio'] == 1 and figures['ways']['ram']['bytes'] is None


@pytest.mark.parametrize('footage', [True, False])
def test_generated_frames(footage, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(frames, 'FRAMES', 5)
    monkeypatch.setattr(frames, 'SIZE', (160, 144))
    if not footage:
        monkeypatch.setattr('sysconfig.get_path', lambda name: str(tmp_path))
    bench()
    out = capsys.readouterr().out
    assert ', jpg: 5 pairs of 160x144' in out and ', png: 5 pairs of 160x144' in out
    assert ('moving texture' in out) == (not footage)


def test_refusals(roots, tmp_path):
    with pytest.raises(DBLRError, match='both folders'):
        bench(roots[0])
    with pytest.raises(DBLRError, match='absent is not a folder'):
        bench(*roots, '--json', str(tmp_path / 'absent/x.json'))
    for root in roots:
        for path in list(Path(root).glob('*/*'))[4:]:
            path.unlink()
    with pytest.raises(DBLRError):
        bench(*roots)
