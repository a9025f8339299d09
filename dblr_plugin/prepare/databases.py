"""Makes LMDB and tile databases beside the folders of a prepared data set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dblr_plugin.data.lmdb_writer import database_bytes, write_lmdb
from dblr_plugin.data.store import open_store
from dblr_plugin.data.tiles.writer import tiles_bytes, write_tiles
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.manifest import roots

__all__ = ['LMDB', 'TILES', 'DatabaseKind', 'bytes_needed', 'write_databases']


@dataclass(frozen=True)
class DatabaseKind:
    """One form of database.

    Args:
        suffix: How its name ends, after ``train_lq`` and the like.
        write: Writes a folder of clips into a new database, which appears when it is complete.
        estimate: Returns an upper estimate of its bytes, from those of the frames' files.
    """

    suffix: str
    write: Callable[[Path, Path], object]
    estimate: Callable[[list[int]], int]


LMDB = DatabaseKind('.lmdb', write_lmdb, database_bytes)
TILES = DatabaseKind('.tiles.lmdb', write_tiles, tiles_bytes)


def bytes_needed(dst: Path, kinds: Sequence[DatabaseKind], files: dict[str, int]) -> int:
    """Returns the bytes that the databases still to be written need.

    Args:
        dst: The tree, whether or not it is there yet.
        kinds: The forms of database wanted.
        files: Path within the tree -> bytes, of all its frames.
    """
    lengths: dict[str, list[int]] = {}
    for path, size in files.items():
        part, side, _ = path.split('/', 2)
        lengths.setdefault(f'{part}_{side}', []).append(size)
    return sum(
        kind.estimate(sizes)
        for kind in kinds
        for name, sizes in lengths.items()
        if not (dst / f'{name}{kind.suffix}').exists()
    )


def write_databases(dst: Path, kinds: Sequence[DatabaseKind]) -> list[Path]:
    """Writes the databases of every folder of clips in a tree, such as ``train_lq.lmdb`` of ``train/lq``.

    Those that are there are kept.

    Returns:
        All of them.

    Raises:
        DBLRError: One that is there holds other frames, or one cannot be written.
    """
    written = []
    for kind in kinds:
        for root in roots(dst):
            database = dst / f'{root.parent.name}_{root.name}{kind.suffix}'
            if not database.exists():
                for stale in dst.glob(f'.{database.name}.partial-*'):  # of a run that was killed
                    shutil.rmtree(stale)
                kind.write(root, database)
            elif open_store(database).clips() != open_store(root).clips():
                raise DBLRError(f'{database} holds other frames than {root}; remove it and run the command again')
            written.append(database)
    return written
