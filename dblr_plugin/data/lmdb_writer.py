"""Writes a folder of clips into a BasicSR-format LMDB database: completely, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
from tqdm import tqdm

from dblr_plugin.data.clips import ClipPair, index_pairs
from dblr_plugin.data.store import FolderStore
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import require_space, write_fault

__all__ = [
    'check_destination', 'database_bytes', 'new_database', 'put_files', 'put_values', 'whole_folder', 'write_lmdb',
    'write_meta_info',
]  # fmt: skip

BATCH = 64  # frames in one transaction
PAGE = 4096
# what LMDB adds to a value: a part of a leaf page for its key and node, and the rounding to pages
ENTRY_OVERHEAD = PAGE
FIXED_OVERHEAD = 1 << 20

Entry = tuple[str, Path]  # key, file


def write_lmdb(src: str | Path, dst: str | Path, progress: bool = True) -> int:
    """Writes the clips in ``src`` into a new database ``dst``; the bytes of each file stay as they are.

    The keys are ``clip/frame``. The lines of ``meta_info.txt`` give 3 channels, as frames are read in colour.

    Args:
        src: Folder of clips; checked as a data set is.
        dst: The ``.lmdb`` folder to create. It appears once it is complete.
        progress: Show a progress bar.

    Returns:
        Number of frames written.

    Raises:
        DBLRError: ``src`` has faults, ``dst`` exists or has another ending, or the disk is full.
    """
    dst = Path(dst)
    check_destination(dst)
    store = FolderStore(src)
    clips = index_pairs(store)
    entries = [(f'{clip.name}/{frame}', store.path(clip.name, frame)) for clip in clips for frame in clip.frames]
    with (
        new_database(dst, database_bytes([path.stat().st_size for _, path in entries])) as environment,
        tqdm(total=len(entries), desc='lmdb', unit='frame', disable=not progress) as bar,
    ):
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            put_files(environment, batch)
            bar.update(len(batch))
        write_meta_info(Path(environment.path()), store, clips)
    return len(entries)


def check_destination(dst: Path) -> None:
    """Raises DBLRError unless a database of this name can be created."""
    if dst.suffix != '.lmdb':
        raise DBLRError(f'{dst} does not end in .lmdb; BasicSR knows a database by that ending')
    if os.path.lexists(dst):
        raise DBLRError(f'{dst} exists; remove it or choose another name')
    if not dst.parent.is_dir():
        raise DBLRError(f'{dst.parent} is not a folder; create it first')


def database_bytes(lengths: list[int]) -> int:
    """Returns an upper estimate of the bytes a database of values of these lengths takes."""
    return sum(-(-length // PAGE) * PAGE + ENTRY_OVERHEAD for length in lengths) + FIXED_OVERHEAD


@contextmanager
def whole_folder(dst: Path) -> Iterator[Path]:
    """Gives a new folder beside ``dst`` that takes its name when the block ends, and is removed when it fails."""
    partial = dst.with_name(f'.{dst.name}.partial-{os.getpid()}')
    try:
        partial.mkdir()
        yield partial
        os.replace(partial, dst)
        _sync_folder(dst.parent)
    except BaseException:  # Ctrl-C as well
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def new_database(dst: Path, size: int) -> Iterator[lmdb.Environment]:
    """Gives the environment of a new database that takes the name ``dst`` when the block ends.

    Args:
        dst: The ``.lmdb`` folder to create.
        size: An upper estimate of its bytes; it may turn out larger.

    Raises:
        DBLRError: The disk is full; nothing is left behind.
    """
    require_space(dst.parent, size, 'the database')
    try:
        # one sync at the end: until then nobody sees the folder
        with whole_folder(dst) as folder, lmdb.open(str(folder), map_size=size, sync=False) as environment:
            yield environment
            environment.sync(True)
    except lmdb.DiskError as error:  # LMDB's own word for ENOSPC
        raise write_fault(dst, OSError(errno.ENOSPC, str(error))) from error
    except lmdb.Error as error:
        raise DBLRError(f'{dst} could not be written ({error}); nothing was left behind') from error
    except OSError as error:
        raise write_fault(dst, error) from error


def put_files(environment: lmdb.Environment, entries: list[Entry]) -> None:
    """Stores files under their keys in one transaction."""
    put_values(environment, [(key, path.read_bytes()) for key, path in entries])


def put_values(environment: lmdb.Environment, values: list[tuple[str, bytes]]) -> None:
    """Stores values under their keys in one transaction, with a larger map when the present one is full."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in values:
                    transaction.put(key.encode(), value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()['map_size'])


def write_meta_info(folder: Path, store: FolderStore, clips: list[ClipPair]) -> None:
    """Writes BasicSR's ``meta_info.txt`` into a database's folder."""
    with open(folder / 'meta_info.txt', 'w', encoding='utf-8') as file:
        for clip in clips:
            height, width = clip.size
            for frame in clip.frames:
                file.write(f'{clip.name}/{store.path(clip.name, frame).name} ({height},{width},3) 1\n')
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` survive a power cut, where the system lets folders be opened (POSIX)."""
    if os.name == 'posix':
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
