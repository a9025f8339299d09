"""Writing tile databases: small, complete or not there at all, and clear about what is missing."""

import os
import resource
import sys
from pathlib import Path

import pytest
from tile_images import encode, picture

from dblr_plugin.data import open_store, write_tiles
from dblr_plugin.data.tiles import cells
from dblr_plugin.errors import DBLRError


@pytest.fixture
def tree(tmp_path) -> Path:
    """Frames of 640x360, two as JPEG and one as PNG, in clips 'a' and 'b'."""
    root = tmp_path / 'clips'
    for clip, number, encoding in (('a', 0, 'jpeg 4:2:0'), ('a', 1, 'jpeg 4:2:0'), ('b', 0, 'png')):
        suffix, data = encode(picture(360, 640, number), encoding)
        (root / clip).mkdir(parents=True, exist_ok=True)
        (root / clip / f'{number:08d}{suffix}').write_bytes(data)
    return root


def test_frames_and_files(tree, tmp_path, capsys):
    assert write_tiles(tree, tmp_path / 'x.lmdb') == 3
    assert 'tiles: 100%' in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ['clips', 'x.lmdb']
    assert sorted(os.listdir(tmp_path / 'x.lmdb')) == ['data.mdb', 'lock.mdb', 'meta_info.txt', 'tiles.json']
    store = open_store(tmp_path / 'x.lmdb')
    assert store.clips() == {'a': ('00000000', '00000001'), 'b': ('00000000',)}
    assert store.where('a', '00000001') == f'{tmp_path}/x.lmdb/a/00000001'


@pytest.mark.parametrize('encoding', ['jpeg 4:2:0', 'jpeg 4:2:2', 'jpeg 4:4:4', 'png'])
def test_bytes_are_at_most_1_4_times_the_sources(tmp_path, encoding):
    root = tmp_path / 'clips'
    (root / 'a').mkdir(parents=True)
    for number in range(3):
        suffix, data = encode(picture(720, 1280, number), encoding)
        (root / f'a/{number}{suffix}').write_bytes(data)
    write_tiles(root, tmp_path / 'x.lmdb', progress=False)
    source = sum(path.stat().st_size for path in root.glob('*/*'))
    assert (tmp_path / 'x.lmdb/data.mdb').stat().st_size <= 1.4 * source


def test_disk_that_refuses_to_go_on_leaves_nothing(tree, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(DBLRError, match='x.lmdb could not be written'):
            write_tiles(tree, tmp_path / 'x.lmdb', progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ['clips']


def test_frame_that_cannot_be_decoded_leaves_nothing(tree, tmp_path):
    """Its header and its end are in place, so that the check of the source lets it pass."""
    path = tree / 'b/00000000.png'
    data = path.read_bytes()
    start = data.index(b'IDAT') + 4
    path.write_bytes(data[:start] + bytes(len(data) - start - 16) + data[-16:])
    with pytest.raises(DBLRError, match='b/00000000.png cannot be decoded'):
        write_tiles(tree, tmp_path / 'x.lmdb', progress=False)
    assert os.listdir(tmp_path) == ['clips']


def test_refusals(tree, tmp_path):
    (tmp_path / 'old.lmdb').mkdir()
    for name, words in [('x', 'end in .lmdb'), ('old.lmdb', 'exists'), ('absent/x.lmdb', 'absent is not a folder')]:
        with pytest.raises(DBLRError, match=words):
            write_tiles(tree, tmp_path / name, progress=False)
    (tree / 'a/00000001.jpg').write_bytes(b'')
    with pytest.raises(DBLRError, match='a/00000001.jpg is empty'):
        write_tiles(tree, tmp_path / 'x.lmdb', progress=False)


@pytest.mark.parametrize('package', ['turbojpeg', 'zstandard'])
def test_missing_package_is_named(tree, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    cells._library.cache_clear()
    with pytest.raises(DBLRError, match=rf"need the package {package} .*pip install 'dblr_plugin\[fast\]'"):
        write_tiles(tree, tmp_path / 'x.lmdb', progress=False)
    assert os.listdir(tmp_path) == ['clips']


def test_library_refuses_what_is_no_jpeg():
    with pytest.raises(ValueError, match='JPEG'):
        cells.crop_losslessly(b'text' * 99, [(0, 0, 8, 8)])
