"""Clips on disk or in LMDB, and the samples made from them.

Code that imports BasicSR is in separate modules: ``windows.py``, and the datasets in ``*_dataset.py``.
"""

from dblr_plugin.data.clips import ClipPair, index_pairs
from dblr_plugin.data.lmdb_store import TileStore
from dblr_plugin.data.lmdb_writer import write_lmdb, write_tiles
from dblr_plugin.data.store import FolderStore, FrameStore, LmdbStore, open_store

__all__ = [
    'ClipPair', 'FolderStore', 'FrameStore', 'LmdbStore', 'TileStore', 'index_pairs', 'open_store', 'write_lmdb',
    'write_tiles',
]  # fmt: skip
