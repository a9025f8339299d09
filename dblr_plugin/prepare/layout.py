"""Arranges a dataset's clips as ``DST/{train,test}/{lq,gt}/<clip>/<frame>.<suffix>``, with databases beside them.

Files are checked first, then linked or copied; an interrupted run can be resumed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dblr_plugin.data.lmdb_writer import database_bytes, tiles_bytes, write_lmdb, write_tiles
from dblr_plugin.data.store import open_store
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.files import atomic_write, make_folder, require_space
from dblr_plugin.prepare import manifest
from dblr_plugin.prepare.check import CheckedClip, Fault, check, raise_faults
from dblr_plugin.prepare.data_sets import Plan
from dblr_plugin.prepare.manifest import files_below, roots
from dblr_plugin.threads import DISK_THREADS, parallel

__all__ = [
    'LMDB', 'TILES', 'DatabaseKind', 'Prepared', 'bytes_needed', 'clip_folder', 'finish_databases', 'place',
    'prepare_layout', 'summary', 'targets', 'unplanned', 'write_databases',
]  # fmt: skip

LINK_BYTES = 512  # a link's directory entry, and the inode that a symbolic link takes on some file systems


def clip_folder(part: str, side: str, clip: str) -> str:
    """Returns a clip's folder, relative to the tree."""
    return f'{part}/{side}/{clip}'


def targets(clips: list[CheckedClip]) -> dict[str, Path]:
    """Returns path within the tree -> source file, for all frames."""
    return {
        f'{clip_folder(checked.clip.part, side, checked.clip.name)}/{frame}{source.suffix}': source
        for checked in clips
        for side, frames in checked.files.items()
        for frame, source in frames.items()
    }


def unplanned(dst: Path, files: Collection[str]) -> list[str]:
    """Returns the frames in the tree that are not among ``files``."""
    return [path for path in files_below(dst) if path not in files]


def place(dst: Path, files: dict[str, Path], copy: bool) -> None:
    """Links or copies files into the tree, skipping those already there.

    Links are hard links, or symbolic links across disks. A copy gets its final name once it is complete.

    Raises:
        DBLRError: The disk has too little space for the missing files, or a write fails.
    """
    missing = [task for task in files.items() if not _in_place(dst / task[0], task[1], copy)]
    require_space(dst, sum(source.stat().st_size if copy else LINK_BYTES for _, source in missing), 'the tree')
    for folder in {os.path.dirname(path) for path, _ in missing}:
        make_folder(dst / folder)

    def put(task: tuple[str, Path]) -> None:
        source = task[1]
        with atomic_write(dst / task[0]) as partial:
            shutil.copyfile(source, partial) if copy else _link(source, partial)

    try:
        for _ in parallel(put, missing, DISK_THREADS, len(missing), 'copying' if copy else 'linking'):
            pass
    except (DBLRError, OSError) as error:
        raise DBLRError(f'{error}; then run the same command again; it continues from there') from error


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source.resolve(), path)
    except OSError:  # another disk, or a file system without hard links
        path.symlink_to(source.resolve())


def _in_place(path: Path, source: Path, copy: bool) -> bool:
    """Returns whether the tree has the file: as a copy if ``copy`` is set, otherwise as a link or a copy."""
    try:
        if os.path.samefile(path, source):
            return not copy
        return path.stat().st_size == source.stat().st_size and path.stat().st_mtime >= source.stat().st_mtime
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class DatabaseKind:
    """A database format.

    Args:
        suffix: Suffix of the database's name, after ``train_lq`` etc.
        write: Writes a folder of clips into a new database, which appears once it is complete.
        estimate: Returns an upper estimate of its size in bytes, from the sizes of the frames' files.
    """

    suffix: str
    write: Callable[[Path, Path], object]
    estimate: Callable[[list[int]], int]


LMDB = DatabaseKind('.lmdb', write_lmdb, database_bytes)
TILES = DatabaseKind('.tiles.lmdb', write_tiles, tiles_bytes)


def bytes_needed(dst: Path, kinds: Sequence[DatabaseKind], files: dict[str, int]) -> int:
    """Returns the bytes needed for the databases still to be written.

    Args:
        dst: The tree, which need not exist yet.
        kinds: The database formats wanted.
        files: Path within the tree -> size in bytes, for all frames.
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
    """Writes databases for every folder of clips in a tree, such as ``train_lq.lmdb`` for ``train/lq``.

    Existing databases are kept.

    Returns:
        The paths of all databases.

    Raises:
        DBLRError: An existing database contains other frames, or one cannot be written.
    """
    written = []
    for kind in kinds:
        for root in roots(dst):
            database = dst / f'{root.parent.name}_{root.name}{kind.suffix}'
            if not database.exists():
                for stale in dst.glob(f'.{database.name}.partial-*'):  # left by a killed run
                    shutil.rmtree(stale)
                kind.write(root, database)
            elif open_store(database).clips() != open_store(root).clips():
                raise DBLRError(f'{database} holds other frames than {root}; remove it and run the command again')
            written.append(database)
    return written


@dataclass(frozen=True)
class Prepared:
    """Result of a preparation.

    Args:
        manifest: The content of ``dataset.json``.
        databases: The requested databases.
        was_complete: Whether the tree was already complete, so that it was only verified.
    """

    manifest: dict[str, Any]
    databases: list[Path]
    was_complete: bool


def prepare_layout(
    plan: Plan,
    dst: Path,
    copy: bool = False,
    allow_partial: bool = False,
    databases: Sequence[DatabaseKind] = (),
) -> Prepared:
    """Arranges a dataset in the tree ``dst/{train,test}/{lq,gt}/<clip>/``, resuming an earlier run.

    Args:
        plan: The dataset.
        dst: The tree's folder. ``dataset.json`` appears there once everything is in place.
        copy: Copy the files instead of linking them.
        allow_partial: Skip clips with faults; otherwise any fault stops the preparation.
        databases: Database formats to write for each folder of clips.

    Raises:
        DBLRError: The sources have faults, ``dst`` contains something else, or the disk is full.
    """
    manifest.refuse_others(dst, plan.kind, plan.variant)
    held = manifest.complete(dst, plan.kind, plan.variant)
    if held is not None and not (copy and held['placed'] == 'linked'):
        return Prepared(held, finish_databases(dst, databases), was_complete=True)
    clips, faults = check(plan)
    if not (allow_partial and clips):
        raise_faults([fault.text for fault in faults], plan, len(clips))
    files = targets(clips)
    if unexpected_files := unplanned(dst, files):
        found = f'{counted(len(unexpected_files), "frame")} besides those of {plan.kind}'
        raise DBLRError(f'{dst} has {found}, such as {unexpected_files[0]}; remove what does not belong there')
    manifest.begin(dst, plan.kind, plan.variant)
    lengths = {path: source.stat().st_size for path, source in files.items()}
    require_space(dst, bytes_needed(dst, databases, lengths), 'the databases')
    place(dst, files, copy)
    written = write_databases(dst, databases)
    content = manifest.finish(dst, plan.kind, plan.variant, _tree_clips(clips), _details(plan, copy, faults))
    return Prepared(content, written, was_complete=False)


def finish_databases(dst: Path, databases: Sequence[DatabaseKind]) -> list[Path]:
    """Writes the databases missing from a complete tree, and returns all requested ones."""
    require_space(dst, bytes_needed(dst, databases, files_below(dst)), 'the databases')
    return write_databases(dst, databases)


def _tree_clips(clips: list[CheckedClip]) -> list[manifest.TreeClip]:
    return [manifest.TreeClip(c.clip.part, c.clip.name, len(c.files['lq']), c.size) for c in clips]


def _details(plan: Plan, copy: bool, faults: list[Fault]) -> dict[str, Any]:
    """Returns the entries of ``dataset.json`` other than counts; ``left_out`` is omitted if no clip was."""
    details = {'source': str(plan.source.resolve()), 'placed': 'copied' if copy else 'linked'}
    return details | ({'left_out': [fault.text for fault in faults]} if faults else {})


MAX_SHOWN = 10


def summary(dst: Path, prepared: Prepared) -> str:
    """Returns a short summary of ``dst``: parts, clips, frames, sizes, databases, and what was left out."""
    content = prepared.manifest
    name = ' '.join(filter(None, (content['kind'], content['variant'])))
    state = 'was complete already; verified' if prepared.was_complete else 'prepared'
    rows: list[tuple[str, ...]] = [('part', 'clips', 'frames', 'ground truth', 'bytes', 'clips of size (w x h)')]
    for part, facts in content['parts'].items():
        sizes = ', '.join(f'{count} of {size}' for size, count in facts['sizes'].items())
        truth = 'yes' if facts['ground_truth'] else 'no'
        rows.append((part, str(facts['clips']), str(facts['frames']), truth, f'{facts["bytes"]:,}', sizes))
    lines = [f'{dst}: {name}, {state}', *_table(rows), *_psnr_lines(content['parts'])]
    lines += [f'{path}: written or kept' for path in prepared.databases]
    lines.append(f'{dst / "dataset.json"}: {counted(content["files"], "file")}, sha256 {content["sha256"]}')
    return '\n'.join(lines + _left_out_lines(content.get('left_out') or content.get('too_short') or []))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Formats rows as aligned columns: text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    figures = [all(re.fullmatch('[0-9.,]+', cell) for cell in column) for column in zip(*rows[1:], strict=True)]
    lines = (
        '  '.join(c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, figures, strict=True))
        for row in rows
    )
    return [f'  {line}'.rstrip() for line in lines]


def _psnr_lines(parts: dict[str, dict]) -> list[str]:
    """Returns a table with a row for each clip with generated blurry frames and their measured PSNR."""
    rows = [
        (f'{part}/{clip}', f'{psnr:.2f}')
        for part, facts in parts.items()
        for clip, psnr in facts.get('blurry_psnr', {}).items()
    ]
    return _table([('clip', 'PSNR of the blurry frames (dB)'), *rows]) if rows else []


def _left_out_lines(faults: list[str]) -> list[str]:
    if not faults:
        return []
    more = [f'  and {len(faults) - MAX_SHOWN} more, in dataset.json'] if len(faults) > MAX_SHOWN else []
    return ['left out, because of:', *(f'  {fault}' for fault in faults[:MAX_SHOWN]), *more]
