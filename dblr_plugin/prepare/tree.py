"""A prepared data set: the tree ``DST/{train,test}/{lq,gt}/<clip>/<frame>.png``, its databases and its description.

``dataset.json``, written last, marks the tree as complete and describes its contents. During preparation,
``.unfinished.json`` identifies the data set, so that the same one can be resumed and others are rejected.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dblr_plugin.data.images import is_image, natural
from dblr_plugin.data.lmdb_writer import database_bytes, tiles_bytes, write_lmdb, write_tiles
from dblr_plugin.data.store import open_store
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.files import hold_folder, is_empty, make_folder, require_space, write_whole
from dblr_plugin.prepare.data_sets import PARTS
from dblr_plugin.version import __version__

__all__ = [
    'LMDB', 'MANIFEST', 'TILES', 'DatabaseKind', 'Prepared', 'TreeClip', 'begin', 'bytes_needed', 'clip_folder',
    'complete', 'finish', 'refuse_others', 'refuse_unplanned', 'roots', 'summary',
    'write_databases',
]  # fmt: skip

MANIFEST = 'dataset.json'
UNFINISHED = '.unfinished.json'
SIDES = ('lq', 'gt')
_MAX_SHOWN = 10  # clips left out


@dataclass(frozen=True)
class TreeClip:
    """A clip in the tree: number of frames on each side, (height, width), and PSNR of the blurry frames."""

    part: str
    name: str
    frames: int
    size: tuple[int, int]
    psnr: float | None = None


def clip_folder(part: str, side: str, clip: str) -> str:
    """Returns a clip's folder, relative to the tree."""
    return f'{part}/{side}/{clip}'


def refuse_others(dst: Path, kind: str, variant: str) -> None:
    """Raises DBLRError if ``dst`` contains another dataset, another variant of it, or something else."""
    if not dst.exists():
        return
    held = _read(dst / MANIFEST) or _read(dst / UNFINISHED)
    if not dst.is_dir() or (held is None and not is_empty(dst)):
        raise DBLRError(f'{dst} is neither empty nor a prepared data set; give a new folder')
    if held is not None and (held.get('kind'), held.get('variant')) != (kind, variant):
        wanted = {'kind': kind, 'variant': variant}
        raise DBLRError(f'{dst} holds {_name(held)}, not {_name(wanted)}; give another folder, or remove it')


def refuse_unplanned(dst: Path, files: Collection[str], kind: str) -> None:
    """Raises DBLRError if the tree has frames that are not among ``files``, the paths within it that are planned."""
    others = [path for path in _files_below(dst) if path not in files]
    if others:
        found = f'{counted(len(others), "frame")} besides those of {kind}'
        raise DBLRError(f'{dst} has {found}, such as {others[0]}; remove what does not belong there')


def begin(dst: Path, kind: str, variant: str) -> None:
    """Marks ``dst`` as being prepared and no longer complete; creates it if needed.

    Raises:
        DBLRError: Another run is preparing it, or it cannot be written.
    """
    make_folder(dst)
    _hold(dst)
    write_whole(dst / UNFINISHED, json.dumps({'kind': kind, 'variant': variant}), sync=True)
    (dst / MANIFEST).unlink(missing_ok=True)


def _hold(dst: Path) -> None:
    hold_folder(str(dst), 'give another folder')


def finish(dst: Path, kind: str, variant: str, clips: Iterable[TreeClip], details: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``meta_info_<part>.txt`` for each part, then ``dataset.json``, and returns the content of the latter.

    Args:
        dst: The tree.
        kind: The dataset.
        variant: Its variant, or ``''``.
        clips: All its clips.
        details: Additional entries, at the top level.
    """
    clips = sorted(clips, key=lambda clip: natural(clip.name))
    parts = {part: [clip for clip in clips if clip.part == part] for part in PARTS}
    files = _files_below(dst)
    for part, members in parts.items():
        if members:
            lines = [f'{clip.name} {clip.frames} ({clip.size[0]},{clip.size[1]},3)\n' for clip in members]
            write_whole(dst / f'meta_info_{part}.txt', ''.join(lines), sync=True)
    content = {
        'kind': kind,
        'variant': variant,
        'version': __version__,
        **details,
        'parts': {part: _summary(members, part, files) for part, members in parts.items() if members},
        'files': len(files),
        'sha256': _checksum(files),
    }
    write_whole(dst / MANIFEST, json.dumps(content, indent=2) + '\n', sync=True)
    (dst / UNFINISHED).unlink(missing_ok=True)
    return content


def complete(dst: Path, kind: str, variant: str) -> dict[str, Any] | None:
    """Returns the manifest if ``dst`` is this dataset, no clip was left out, and all file sizes match; else None."""
    held = _read(dst / MANIFEST)
    if held is None or (held.get('kind'), held.get('variant')) != (kind, variant) or held.get('left_out'):
        return None
    return held if held.get('sha256') == _checksum(_files_below(dst)) else None


def roots(dst: Path) -> list[Path]:
    """Returns the folders of clips in a tree: ``train/lq``, ``train/gt``, ``test/lq``, ``test/gt``, if they exist."""
    return [root for part in PARTS for side in SIDES if (root := dst / part / side).is_dir()]


def _files_below(dst: Path) -> dict[str, int]:
    """Returns path within ``dst`` -> size in bytes, for all frames of a tree."""
    return {
        f'{root.parent.name}/{root.name}/{clip.name}/{entry.name}': entry.stat().st_size
        for root in roots(dst)
        for clip in os.scandir(root)
        if clip.is_dir()
        for entry in os.scandir(clip)
        if is_image(entry.name) and entry.is_file()  # a dangling link is not a frame
    }


def _summary(clips: list[TreeClip], part: str, files: Mapping[str, int]) -> dict[str, Any]:
    """Returns the counts, sizes and bytes of one part."""
    sizes = Counter(f'{clip.size[1]}x{clip.size[0]}' for clip in clips)
    summary = {
        'clips': len(clips),
        'frames': sum(clip.frames for clip in clips),
        'sizes': dict(sizes.most_common()),
        'ground_truth': any(path.startswith(f'{part}/gt/') for path in files),
        'bytes': sum(size for path, size in files.items() if path.startswith(f'{part}/')),
    }
    psnr = {clip.name: clip.psnr for clip in clips if clip.psnr is not None}
    return summary | ({'blurry_psnr': psnr} if psnr else {})


def _checksum(files: Mapping[str, int]) -> str:
    """Returns the SHA-256 of the sorted lines ``path bytes``; it covers names and sizes, not pixels."""
    lines = ''.join(f'{path} {size}\n' for path, size in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _name(held: Mapping[str, Any]) -> str:
    return f"'{' '.join(filter(None, (str(held.get('kind')), str(held.get('variant')))))}'"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


class DatabaseKind(NamedTuple):
    """A database format.

    Attributes:
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
    """Writes databases for each folder of clips, such as ``train_lq.lmdb`` for ``train/lq``; returns all their paths.

    Existing databases are kept.

    Raises:
        DBLRError: An existing database contains other frames (by name or total size), another run is preparing the
            tree, the disk has too little space, or a write fails.
    """
    if kinds:
        _hold(dst)
        require_space(dst, bytes_needed(dst, kinds, _files_below(dst)), 'the databases')

    def contents(root: Path) -> tuple[Mapping[str, tuple[str, ...]], int]:
        store = open_store(root)
        return store.clips(), store.source_bytes()

    written = []
    for kind in kinds:
        for root in roots(dst):
            database = dst / f'{root.parent.name}_{root.name}{kind.suffix}'
            if not database.exists():
                for stale in dst.glob(f'.{database.name}.partial-*'):  # left by a killed run
                    shutil.rmtree(stale)
                kind.write(root, database)
            elif contents(database) != contents(root):
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


def summary(dst: Path, prepared: Prepared) -> str:
    """Returns a short summary of ``dst``: parts, clips, frames, sizes, databases, and what was left out."""
    content = prepared.manifest
    name = ' '.join(filter(None, (content['kind'], content['variant'])))
    state = 'was complete already; verified' if prepared.was_complete else 'prepared'
    rows: list[tuple[str, ...]] = [('part', 'clips', 'frames', 'ground truth', 'bytes', 'clips of size (w x h)')]
    blurs: list[tuple[str, ...]] = [('clip', 'PSNR of the blurry frames (dB)')]
    for part, facts in content['parts'].items():
        sizes = ', '.join(f'{count} of {size}' for size, count in facts['sizes'].items())
        truth = 'yes' if facts['ground_truth'] else 'no'
        rows.append((part, str(facts['clips']), str(facts['frames']), truth, f'{facts["bytes"]:,}', sizes))
        blurs += [(f'{part}/{clip}', f'{psnr:.2f}') for clip, psnr in facts.get('blurry_psnr', {}).items()]
    lines = [f'{dst}: {name}, {state}', *_table(rows), *(_table(blurs) if len(blurs) > 1 else [])]
    lines += [f'{path}: written or kept' for path in prepared.databases]
    lines.append(f'{dst / MANIFEST}: {counted(content["files"], "file")}, sha256 {content["sha256"]}')
    if left_out := content.get('left_out') or content.get('too_short'):
        lines += ['left out, because of:', *(f'  {fault}' for fault in left_out[:_MAX_SHOWN])]
        if len(left_out) > _MAX_SHOWN:
            lines.append(f'  and {len(left_out) - _MAX_SHOWN} more, in {MANIFEST}')
    return '\n'.join(lines)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Formats rows as aligned columns: text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    figures = [all(re.fullmatch('[0-9.,]+', cell) for cell in column) for column in zip(*rows[1:], strict=True)]
    lines = (
        '  '.join(c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, figures, strict=True))
        for row in rows
    )
    return [f'  {line}'.rstrip() for line in lines]
