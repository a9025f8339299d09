"""Writes a folder of clips into an LMDB database, in BasicSR's format or tiled; completely or not at all.

Reading crops from tiles is many times as fast as from files.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
from tqdm import tqdm

from dblr_plugin.data import tiles
from dblr_plugin.data.clips import ClipPair, index_pairs
from dblr_plugin.data.images import decode, is_jpeg
from dblr_plugin.data.store import FolderStore
from dblr_plugin.data.tiles import FrameHead
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import require_space, write_fault
from dblr_plugin.processes import usable_cores

__all__ = ['database_bytes', 'tiles_bytes', 'write_lmdb', 'write_tiles']

BATCH = 64  # frames in one transaction
PAGE = 4096
# LMDB's overhead per value: part of a leaf page for its key and node, and rounding up to whole pages
ENTRY_OVERHEAD = PAGE
FIXED_OVERHEAD = 1 << 20
TILE_BATCH = 16  # frames encoded ahead of writing
TILE_SPARE = 1.2  # for the estimate: measured sizes are 1.1 times a JPEG's and 0.8 to 1.03 times a PNG's


def write_lmdb(src: str | Path, dst: str | Path, progress: bool = True) -> int:
    """Writes the clips in ``src`` into a new database ``dst``; the bytes of each file are stored unchanged.

    The keys are ``clip/frame``. ``meta_info.txt`` always gives 3 channels, as frames are read in colour.

    Args:
        src: Folder of clips; validated like a dataset.
        dst: The ``.lmdb`` folder to create. It appears once it is complete.
        progress: Show a progress bar.

    Returns:
        Number of frames written.

    Raises:
        DBLRError: ``src`` has faults, ``dst`` exists, lies in it or has another suffix, or the disk is full.
    """
    store, clips, frames, lengths = _look_through(src, Path(dst))
    with (
        _new_database(Path(dst), database_bytes(lengths)) as environment,
        tqdm(total=len(frames), desc='lmdb', unit='frame', disable=not progress) as bar,
    ):
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            _put_values(environment, [(key, path.read_bytes()) for key, path in batch])
            bar.update(len(batch))
        _write_meta_info(Path(environment.path()), store, clips)
    return len(frames)


def write_tiles(src: str | Path, dst: str | Path, progress: bool = True) -> int:
    """Writes the clips in ``src`` into a new tile database; pixels are preserved bit for bit.

    JPEG files are cut without decoding, and each result is decoded and compared before it is accepted. JPEG files that
    cannot be cut (such as CMYK) and all other formats are stored as losslessly compressed pixels.

    For the arguments and the result, see :func:`write_lmdb`; DBLRError also says which package is missing.
    """
    store, clips, frames, lengths = _look_through(src, Path(dst))
    codecs = set()
    with (
        _new_database(Path(dst), tiles_bytes(lengths)) as environment,
        ThreadPoolExecutor(usable_cores()) as pool,  # decoding and compressing release the GIL
        tqdm(total=len(frames), desc='tiles', unit='frame', disable=not progress) as bar,
    ):
        for start in range(0, len(frames), TILE_BATCH):
            batch = frames[start : start + TILE_BATCH]
            for (key, _), (head, bundles) in zip(batch, pool.map(_encode_file, batch), strict=True):
                _put_values(environment, [(key, head.pack()), *((f'{key}/{i}', b) for i, b in enumerate(bundles))])
                codecs.add(head.codec)
                bar.update()
        _write_meta_info(Path(environment.path()), store, clips)
        marker = {'version': tiles.VERSION, 'codecs': sorted(codecs), 'source_bytes': sum(lengths)}
        (Path(environment.path()) / tiles.TILES_JSON).write_text(json.dumps(marker, indent=2) + '\n', encoding='utf-8')
    return len(frames)


def tiles_bytes(lengths: list[int]) -> int:
    """Returns an upper estimate of a tile database's size in bytes, from the sizes of the frames' files."""
    return int(TILE_SPARE * database_bytes(lengths))


def _encode_file(frame: tuple[str, Path]) -> tuple[FrameHead, list[bytes]]:
    """Returns a frame's header and its bundles."""
    data = frame[1].read_bytes()
    image = decode(data, str(frame[1]))
    head, columns = (_cut_exactly(data, image) if is_jpeg(data) else None) or tiles.cut_pixels(image)
    bundle = tiles.bundle_columns(columns)
    bundles = [tiles.pack_bundle(columns[start : start + bundle]) for start in range(0, len(columns), bundle)]
    return replace(head, bundle=bundle), bundles


def _cut_exactly(data: bytes, image: np.ndarray) -> tuple[FrameHead, list[list[bytes]]] | None:
    """Cuts a JPEG into cells that decode to exactly ``image``; returns None if that is not possible."""
    try:
        head, columns = tiles.cut_jpeg(data)
        decoded = tiles.decode_jpeg(head, columns, range(head.rows), range(head.columns), grey=False)
    except ValueError:
        return None
    return (head, columns) if np.array_equal(decoded, image) else None


def _look_through(src: str | Path, dst: Path) -> tuple[FolderStore, list[ClipPair], list[tuple[str, Path]], list[int]]:
    """Returns the store at ``src``, its clips, the key and file of each frame, and the files' sizes in bytes."""
    if dst.suffix != '.lmdb':
        raise DBLRError(f'{dst} does not end in .lmdb; BasicSR knows a database by that ending')
    if os.path.lexists(dst):
        raise DBLRError(f'{dst} exists; remove it or choose another name')
    if not dst.parent.is_dir():
        raise DBLRError(f'{dst.parent} is not a folder; create it first')
    if dst.parent.resolve() == Path(src).resolve():
        raise DBLRError(f'{dst} would lie among the clips of {src}, and be taken for one; choose another folder')
    store = FolderStore(src)
    clips = index_pairs(store)
    frames = [(f'{clip.name}/{frame}', store.path(clip.name, frame)) for clip in clips for frame in clip.frames]
    return store, clips, frames, [path.stat().st_size for _, path in frames]


def database_bytes(lengths: list[int]) -> int:
    """Returns an upper estimate of the bytes that a database with values of these lengths takes."""
    return sum(-(-length // PAGE) * PAGE + ENTRY_OVERHEAD for length in lengths) + FIXED_OVERHEAD


@contextmanager
def _new_database(dst: Path, size: int) -> Iterator[lmdb.Environment]:
    """Yields the environment of a new database of about ``size`` bytes, which becomes ``dst`` when the block ends."""
    require_space(dst.parent, size, 'the database')
    partial = dst.with_name(f'.{dst.name}.partial-{os.getpid()}')
    shutil.rmtree(partial, ignore_errors=True)  # a killed process may have had the same number
    try:
        # one sync at the end is enough: the folder is not visible before
        with lmdb.open(str(partial), map_size=size, sync=False) as environment:
            yield environment
            environment.sync(True)
        os.replace(partial, dst)
    except lmdb.DiskError as error:  # how lmdb reports ENOSPC
        raise write_fault(dst, OSError(errno.ENOSPC, str(error))) from error
    except lmdb.Error as error:
        raise DBLRError(f'{dst} could not be written ({error}); nothing was left behind') from error
    except OSError as error:
        raise write_fault(dst, error) from error
    finally:  # after Ctrl-C as well
        shutil.rmtree(partial, ignore_errors=True)


def _put_values(environment: lmdb.Environment, values: list[tuple[str, bytes]]) -> None:
    """Stores values under their keys in one transaction, enlarging the map if it is full."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in values:
                    transaction.put(key.encode(), value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()['map_size'])


def _write_meta_info(folder: Path, store: FolderStore, clips: list[ClipPair]) -> None:
    """Writes BasicSR's ``meta_info.txt`` into a database's folder."""
    with open(folder / 'meta_info.txt', 'w', encoding='utf-8') as file:
        for clip in clips:
            height, width = clip.size
            for frame in clip.frames:
                file.write(f'{clip.name}/{store.path(clip.name, frame).name} ({height},{width},3) 1\n')
