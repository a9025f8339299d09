"""LMDB databases keep the bytes or pixels of their sources, and a failure leaves no files."""

import argparse
import os
import resource
import sys
from pathlib import Path

import lmdb
import pytest
from basicsr.utils import FileClient
from tile_images import encode, picture

from dblr_plugin.commands import prepare
from dblr_plugin.data import open_store, tiles
from dblr_plugin.data.lmdb_writer import _new_database, _put_values, database_bytes, write_lmdb, write_tiles
from dblr_plugin.errors import DBLRError

both = pytest.mark.parametrize('write', [write_lmdb, write_tiles])


@pytest.fixture
def tree(make_tree):
    root = make_tree('clips', {'alpha': 3, 'beta': 0})
    (root / 'beta').rmdir()
    make_tree('clips', {'jpeg': 2}, suffix='.jpg')
    return root


def test_basicsr_reads_unchanged_bytes(tree, tmp_path):
    database = tmp_path / 'x.lmdb'
    assert write_lmdb(tree, database, progress=False) == 5
    client = FileClient('lmdb', db_paths=[str(database)], client_keys=['lq'])
    for path in tree.glob('*/*'):
        assert client.get(f'{path.parent.name}/{path.stem}', 'lq') == path.read_bytes()


@both
def test_database_has_data_and_meta_info(tree, tmp_path, capsys, write):
    database = tmp_path / 'x.lmdb'
    assert write(tree, database) == 5
    assert ': 100%' in capsys.readouterr().err
    tiles = ['tiles.json'] if write is write_tiles else []
    assert sorted(os.listdir(database)) == ['data.mdb', 'lock.mdb', 'meta_info.txt', *tiles]
    assert (database / 'meta_info.txt').read_text().splitlines() == [
        *(f'alpha/0000000{i}.png (24,32,3) 1' for i in range(3)),
        *(f'jpeg/0000000{i}.jpg (24,32,3) 1' for i in range(2)),
    ]
    assert sorted(os.listdir(tmp_path)) == ['clips', 'x.lmdb']
    store = open_store(database)
    assert store.clips() == open_store(tree).clips()
    assert store.where('alpha', '00000001') == f'{database}/alpha/00000001'


@pytest.mark.parametrize('length', [1, 2000, 4081, 100_000])
def test_size_estimate_is_sufficient_and_close(tmp_path, length):
    estimate = database_bytes([length] * 300)
    with lmdb.open(str(tmp_path / 'x'), map_size=estimate) as environment:
        _put_values(environment, [(f'clip/{i:08d}', bytes(length)) for i in range(300)])
        assert environment.info()['map_size'] == estimate, 'the map had to grow'
    assert estimate < 300 * (length + 2 * 4096) + (2 << 20)


def test_map_grows_when_full(tmp_path):
    with lmdb.open(str(tmp_path / 'x'), map_size=1 << 16) as environment:
        _put_values(environment, [(f'clip/{i:08d}', bytes(50_000)) for i in range(30)])
        assert environment.stat()['entries'] == 30


@pytest.mark.parametrize('encoding', ['jpeg 4:2:0', 'jpeg 4:2:2', 'jpeg 4:4:4', 'png'])
def test_tiles_take_at_most_1_4_times_the_sources_bytes(tmp_path, encoding):
    (tmp_path / 'clips/a').mkdir(parents=True)
    suffix, data = encode(picture(720, 1280), encoding)
    (tmp_path / f'clips/a/0{suffix}').write_bytes(data)
    write_tiles(tmp_path / 'clips', tmp_path / 'x.lmdb', progress=False)
    assert (tmp_path / 'x.lmdb/data.mdb').stat().st_size <= 1.4 * len(data)


@pytest.mark.parametrize('stop', [KeyboardInterrupt, ValueError])
def test_interruption_leaves_no_files(tmp_path, stop):
    with pytest.raises(stop), _new_database(tmp_path / 'x.lmdb', 1 << 20) as environment:
        _put_values(environment, [('clip/0', b'half')])
        assert not (tmp_path / 'x.lmdb').exists()
        raise stop
    assert os.listdir(tmp_path) == []


@both
def test_full_disk_leaves_no_files(tmp_path, write):
    (tmp_path / 'clips/a').mkdir(parents=True)
    for number in range(2):
        (tmp_path / f'clips/a/{number}.png').write_bytes(encode(picture(360, 640, number), 'png')[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(DBLRError, match=r'x\.lmdb could not be written'):
            write(tmp_path / 'clips', tmp_path / 'x.lmdb', progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ['clips']


@both
def test_bad_targets_and_damaged_frames_are_refused(tree, tmp_path, write):
    (tmp_path / 'old.lmdb').mkdir()
    for name, words in [
        ('x', 'end in .lmdb'),
        ('old.lmdb', 'exists'),
        ('absent/x.lmdb', 'absent is not a folder'),
        ('clips/x.lmdb', 'taken for one'),
    ]:
        with pytest.raises(DBLRError, match=words):
            write(tree, tmp_path / name, progress=False)
    (tree / 'alpha/00000001.png').write_bytes(b'')
    with pytest.raises(DBLRError, match='alpha/00000001.png is empty'):
        write(tree, tmp_path / 'x.lmdb', progress=False)
    assert sorted(os.listdir(tmp_path)) == ['clips', 'old.lmdb']


def test_undecodable_frame_is_named_by_write_tiles(tree, tmp_path):
    """Its header and end are intact, so the check of the source does not find the damage."""
    path = tree / 'alpha/00000000.png'
    data = path.read_bytes()
    start = data.index(b'IDAT') + 4
    path.write_bytes(data[:start] + bytes(len(data) - start - 16) + data[-16:])
    with pytest.raises(DBLRError, match='alpha/00000000.png cannot be decoded'):
        write_tiles(tree, tmp_path / 'x.lmdb', progress=False)
    assert os.listdir(tmp_path) == ['clips']


@pytest.mark.parametrize('package', ['turbojpeg', 'zstandard'])
def test_missing_package_is_named(tree, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    tiles._library.cache_clear()
    with pytest.raises(DBLRError, match=rf"need the package {package} .*pip install 'dblr_plugin\[fast\]'"):
        write_tiles(tree, tmp_path / 'x.lmdb', progress=False)
    assert os.listdir(tmp_path) == ['clips']


def test_lossless_crop_refuses_data_that_is_not_a_jpeg():
    with pytest.raises(ValueError, match='JPEG'):
        tiles.crop_losslessly(b'text' * 99, [(0, 0, 8, 8)])


def test_command_reports_clips_and_frames(tree: Path, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args(['lmdb', str(tree), str(tmp_path / 'x.lmdb')]))
    assert '2 clips, 5 frames' in capsys.readouterr().out
