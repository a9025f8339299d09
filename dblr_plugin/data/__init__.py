"""Clips on disk or in LMDB, and the samples made of them; importing it registers the data sets."""

from dblr_plugin.data.clips import ClipPair, index_pairs
from dblr_plugin.data.lmdb_store import TileStore
from dblr_plugin.data.lmdb_writer import write_lmdb, write_tiles
from dblr_plugin.data.store import FolderStore, FrameStore, LmdbStore, open_store
from dblr_plugin.data.synthetic_motion_dataset import SyntheticMotionDataset
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.data.windows import window_indices

__all__ = [
    'ClipPair', 'FolderStore', 'FrameStore', 'LmdbStore', 'SyntheticMotionDataset', 'TileStore', 'VideoDeblurDataset',
    'VideoDeblurTestDataset', 'index_pairs', 'open_store', 'window_indices', 'write_lmdb', 'write_tiles',
]  # fmt: skip
