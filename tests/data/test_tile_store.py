"""Crops from every kind of store are bit-identical to the decoded source, and damage is named."""

import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from basicsr.utils.color_util import bgr2ycbcr
from processes import warm
from tile_images import ENCODINGS, encode, picture

from dblr_plugin.data.images import decode
from dblr_plugin.data.lmdb_store import TileStore
from dblr_plugin.data.lmdb_writer import write_lmdb, write_tiles
from dblr_plugin.data.store import open_store
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.errors import DBLRError

SIZE = (70, 632)  # a prime number of units in a row; tests/properties draws other sizes


@pytest.fixture
def make_stores(tmp_path: Path):
    """Writes frames 00, 01, ... of a clip 'a' and returns them as a folder, a database and a tile database."""

    def make(frames: list[tuple[str, bytes]], name: str = 'clips'):
        root = tmp_path / name
        (root / 'a').mkdir(parents=True)
        for number, (suffix, data) in enumerate(frames):
            (root / f'a/{number:02d}{suffix}').write_bytes(data)
        write_lmdb(root, tmp_path / f'{name}.lmdb', progress=False)
        write_tiles(root, tmp_path / f'{name}_tiles.lmdb', progress=False)
        return [open_store(tmp_path / path) for path in (name, f'{name}.lmdb', f'{name}_tiles.lmdb')]

    return make


@pytest.fixture
def tiles(make_stores) -> TileStore:
    return make_stores([encode(picture(150, 200), 'jpeg 4:2:0'), encode(picture(150, 200), 'png')])[2]


def squares(height: int, width: int) -> list[tuple[int, int, int]]:
    """Returns (top, left, size) in the corners, at each edge, around borders of tiles, and at random."""
    rng = random.Random(height)
    found = []
    for size in {1, 2, 16, 40, min(height, width)}:
        size = min(size, height, width)
        bottom, right = height - size, width - size
        found += [(top, left, size) for top in (0, bottom // 2, bottom) for left in (0, right // 2, right)]
        near = [8, 15, 16, 17, 63, 64, 65, 127, 128]
        found += [(min(y, bottom), min(x, right), size) for y, x in zip(near, rng.sample(near, len(near)), strict=True)]
        found += [(rng.randint(0, bottom), rng.randint(0, right), size) for _ in range(5)]
    return found


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_crops_and_frames_equal_the_decoded_source(make_stores, encoding):
    frame = encode(picture(*SIZE), encoding)
    expected = decode(frame[1], encoding)
    for store in make_stores([frame]):
        np.testing.assert_array_equal(store.read('a', '00'), expected)
        assert store.inspect('a', '00') == SIZE
        for top, left, side in squares(*SIZE):
            crop = store.read_crop('a', '00', top, left, side)
            np.testing.assert_array_equal(crop, expected[top : top + side, left : left + side])


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_y_only_crops_are_close_to_basicsrs_y(make_stores, encoding):
    """All stores are bit-identical; Y equals BasicSR's, or for a JPEG is within 55 dB (PSNR) of it."""
    frame = encode(picture(90, 140), encoding)
    y = bgr2ycbcr(decode(frame[1], encoding).astype(np.float32) / 255, y_only=True)[..., None]
    stores = make_stores([frame])
    for top, left, side in [(0, 0, 90), (13, 50, 64), (26, 76, 64)]:
        crops = [store.read_crop('a', '00', top, left, side, y_only=True) for store in stores]
        assert crops[0].shape == (side, side, 1) and crops[0].dtype == np.float32
        for crop in crops:
            np.testing.assert_array_equal(crop, crops[0])
        error = crops[0] - y[top : top + side, left : left + side]
        assert np.sqrt(np.mean(error**2)) < (10 ** (-55 / 20) if frame[0] == '.jpg' else 1e-6)


def test_y_of_grey_jpegs_equals_basicsrs(make_stores):
    """The Y of black, white and grey JPEGs equals BasicSR's."""
    for grey, expected in ((0, 16), (255, 235), (128, 16 + 219 * 128 / 255)):
        image = np.full((32, 32, 3), grey, np.uint8)
        stores = make_stores([encode(image, 'jpeg 4:4:4')], f'clips{grey}')
        for store in stores:
            np.testing.assert_allclose(store.read_crop('a', '00', 4, 4, 16, y_only=True) * 255, expected, rtol=1e-6)


def test_training_samples_equal_those_of_the_folder(make_stores):
    frames = [encode(picture(96, 130, seed), 'jpeg 4:2:0' if seed % 2 else 'png') for seed in range(6)]
    roots = [store.root for store in make_stores(frames)]
    for y_only in (False, True):
        samples = []
        for root in roots:
            options = {'dataroot_lq': str(root), 'dataroot_gt': str(root), 'gt_size': 64, 'y_only': y_only}
            data = VideoDeblurDataset(options | {'use_hflip': True, 'use_rot': True, 'random_reverse': True})
            torch.manual_seed(3)
            samples.append([data[index] for index in (0, 1, 0, 1)])
        channels = 1 if y_only else 3
        assert samples[0][0]['lq'].shape == (5, channels, 64, 64) and samples[0][0]['gt'].shape == (channels, 64, 64)
        for others in samples[1:]:
            for ours, theirs in zip(samples[0], others, strict=True):
                assert torch.equal(ours['lq'], theirs['lq']) and torch.equal(ours['gt'], theirs['gt'])


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fork', 'pickled'])
def test_worker_processes_read_the_same_crops(tiles, method):
    """The parent process has the database open while the workers start."""
    squares = [('a', f'{place % 2:02d}', place, place, 64) for place in range(80)]
    expected = [tiles.read_crop(*square) for square in squares]
    with ProcessPoolExecutor(4, mp_context=get_context('fork') if method == 'fork' else warm()) as pool:
        crops = list(pool.map(tiles.read_crop, *zip(*squares, strict=True)))
    np.testing.assert_array_equal(crops, expected)


def change(store: TileStore, key: str, value: bytes | None) -> None:
    """Replaces or removes a value in the database file of an open store."""
    with lmdb.open(str(store.root), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        transaction.delete(key.encode()) if value is None else transaction.put(key.encode(), value)


@pytest.mark.parametrize('frame', ['00', '01'])
@pytest.mark.parametrize(
    'key, damage',
    [
        ('', lambda value: None),
        ('', lambda value: value[:10]),
        ('', lambda value: bytes(len(value))),
        ('/0', lambda value: None),
        ('/0', lambda value: b''),
        ('/0', lambda value: value[: len(value) // 3]),
        ('/0', lambda value: value[:600] + bytes(len(value) - 600)),
    ],
)
def test_damaged_frame_is_named(tiles, frame, key, damage):
    path = tiles.root
    with lmdb.open(str(path), readonly=True) as environment, environment.begin() as transaction:
        value = transaction.get(f'a/{frame}{key}'.encode())
    change(tiles, f'a/{frame}{key}', damage(value))
    with pytest.raises(DBLRError, match=f"'a/{frame}.*{path}.*write the database again"):
        tiles.read('a', frame)


@pytest.mark.parametrize(
    'text, words',
    [('{', 'cannot be read'), ('[]', 'cannot be read'), ('{"version": 9, "codecs": []}', 'version 9, not 1')],
)
def test_damaged_or_newer_marker_is_refused(tiles, text, words):
    (tiles.root / 'tiles.json').write_text(text)
    with pytest.raises(DBLRError, match=words):
        open_store(tiles.root)


def test_missing_package_is_named_on_opening(tiles, monkeypatch):
    monkeypatch.setitem(sys.modules, 'zstandard', None)
    with pytest.raises(DBLRError, match=r"need the package zstandard .*pip install 'dblr_plugin\[fast\]'"):
        open_store(tiles.root)
    marker = json.loads((tiles.root / 'tiles.json').read_text())
    (tiles.root / 'tiles.json').write_text(json.dumps({**marker, 'codecs': ['jpeg']}))
    open_store(tiles.root)
