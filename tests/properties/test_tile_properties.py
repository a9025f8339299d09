"""Crops of any position and size from every kind of store."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_images import ENCODINGS, encode, picture

from dblr_plugin.data import open_store, write_lmdb, write_tiles
from dblr_plugin.data.images import decode

# near borders of JPEG's units and of cells, or anywhere
near_borders = st.builds(lambda cell, count, offset: max(0, cell * count + offset),
                         st.sampled_from([8, 16, 64]), st.integers(0, 12), st.integers(-2, 2))  # fmt: skip
anywhere = st.integers(0, 200)
sides = st.one_of(st.integers(1, 12), near_borders, anywhere).map(lambda side: min(max(side, 1), 170))


@st.composite
def squares(draw: st.DrawFn, height: int, width: int) -> tuple[int, int, int]:
    """(top, left, size) within an image, often at its edges or at borders of cells."""
    size = min(draw(sides), height, width)
    top, left = (
        min(draw(st.one_of(st.just(0), st.just(most), near_borders, anywhere)), most)
        for most in (height - size, width - size)
    )
    return top, left, size


@pytest.mark.slow
@settings(max_examples=90)
@given(height=sides, width=sides, encoding=st.sampled_from(ENCODINGS), data=st.data())
def test_every_store_returns_the_pixels_of_its_source(height, width, encoding, data):
    suffix, source = encode(picture(height, width, seed=height), encoding)
    expected = decode(source, encoding)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'clips'
        (root / 'a').mkdir(parents=True)
        (root / f'a/0{suffix}').write_bytes(source)
        write_lmdb(root, root.with_suffix('.lmdb'), progress=False)
        write_tiles(root, root.with_suffix('.tiles.lmdb'), progress=False)
        stores = [open_store(root.with_suffix(end)) for end in ('', '.lmdb', '.tiles.lmdb')]
        for store in stores:
            assert store.inspect('a', '0') == (height, width)
            np.testing.assert_array_equal(store.read('a', '0'), expected)
        for top, left, size in data.draw(st.lists(squares(height, width), min_size=1, max_size=6)):
            place = slice(top, top + size), slice(left, left + size)
            bright = [store.read_crop('a', '0', top, left, size, y_only=True) for store in stores]
            for store, crop in zip(stores, bright, strict=True):
                np.testing.assert_array_equal(store.read_crop('a', '0', top, left, size), expected[place])
                assert crop.shape == (size, size, 1)
                np.testing.assert_array_equal(crop, bright[0])
