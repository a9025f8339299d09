"""Writes a folder of clips into a tile database, from which crops are read many times as fast as from files."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dblr_plugin.data.clips import index_pairs
from dblr_plugin.data.crops import is_jpeg
from dblr_plugin.data.images import decode
from dblr_plugin.data.lmdb_writer import check_destination, database_bytes, new_database, put_values, write_meta_info
from dblr_plugin.data.store import FolderStore
from dblr_plugin.data.tiles.cells import cut_jpeg, cut_pixels, decode_jpeg
from dblr_plugin.data.tiles.format import TILES_JSON, VERSION, FrameHead, bundle_columns, pack_bundle

__all__ = ['tiles_bytes', 'write_tiles']

BATCH = 16  # frames encoded ahead of what is written
SPARE = 1.2  # for the estimate: measured were 1.1 times a JPEG's bytes and 0.8 to 1.03 times a PNG's


def write_tiles(src_root: str | Path, dst_lmdb: str | Path, progress: bool = True) -> int:
    """Writes the clips in ``src_root`` into a new tile database; pixels stay as they are, to the bit.

    JPEG files are cut without decoding them, and each is read back and compared before it counts as written. JPEG
    files that cannot be cut (such as CMYK) and all others are stored as pixels, compressed without loss.

    Args:
        src_root: Folder of clips; checked as a data set is.
        dst_lmdb: The ``.lmdb`` folder to create. It appears once it is complete.
        progress: Show a progress bar.

    Returns:
        Number of frames written.

    Raises:
        DBLRError: ``src_root`` has faults, ``dst_lmdb`` exists or has another ending, the disk is full, or a package
            is missing.
    """
    dst = Path(dst_lmdb)
    check_destination(dst)
    store = FolderStore(src_root)
    clips = index_pairs(store)
    frames = [(f'{clip.name}/{frame}', store.path(clip.name, frame)) for clip in clips for frame in clip.frames]
    lengths = [path.stat().st_size for _, path in frames]
    codecs = set()
    with (
        new_database(dst, tiles_bytes(lengths)) as environment,
        ThreadPoolExecutor(os.cpu_count()) as pool,  # decoding and compressing leave the interpreter's lock alone
        tqdm(total=len(frames), desc='tiles', unit='frame', disable=not progress) as bar,
    ):
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            for (key, _), (head, bundles) in zip(batch, pool.map(_encode_file, batch), strict=True):
                put_values(environment, [(key, head.pack()), *((f'{key}/{i}', b) for i, b in enumerate(bundles))])
                codecs.add(head.codec)
                bar.update()
        write_meta_info(Path(environment.path()), store, clips)
        marker = {'version': VERSION, 'codecs': sorted(codecs), 'source_bytes': sum(lengths)}
        (Path(environment.path()) / TILES_JSON).write_text(json.dumps(marker, indent=2) + '\n', encoding='utf-8')
    return len(frames)


def tiles_bytes(lengths: list[int]) -> int:
    """Returns an upper estimate of the bytes of a tile database, from those of the frames' files."""
    return int(SPARE * database_bytes(lengths))


def _encode_file(frame: tuple[str, Path]) -> tuple[FrameHead, list[bytes]]:
    """Returns a frame's head and its bundles."""
    data = frame[1].read_bytes()
    image = decode(data, str(frame[1]))
    head, columns = (_cut_exactly(data, image) if is_jpeg(data) else None) or cut_pixels(image)
    bundle = bundle_columns(columns)
    bundles = [pack_bundle(columns[start : start + bundle]) for start in range(0, len(columns), bundle)]
    return replace(head, bundle=bundle), bundles


def _cut_exactly(data: bytes, image: np.ndarray) -> tuple[FrameHead, list[list[bytes]]] | None:
    """Cuts a JPEG into cells that decode to exactly ``image``; returns None if that cannot be."""
    try:
        head, columns = cut_jpeg(data)
        decoded = decode_jpeg(head, columns, range(head.rows), range(head.columns), grey=False)
    except ValueError:
        return None
    return (head, columns) if np.array_equal(decoded, image) else None
