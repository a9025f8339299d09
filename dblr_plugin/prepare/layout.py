"""Brings a data set from its original layout into a tree: compares its files with the plan, then links or copies them.

All faults are reported before anything is written; an interrupted run can be resumed.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dblr_plugin.data.images import inspected_size, is_image, natural, refuse_undecodable
from dblr_plugin.errors import DBLRError, counted, first_faults
from dblr_plugin.files import atomic_write, make_folder, require_space
from dblr_plugin.prepare import tree
from dblr_plugin.prepare.data_sets import Clip, Plan
from dblr_plugin.threads import DISK_THREADS, parallel

__all__ = ['CheckedClip', 'Fault', 'check', 'prepare_layout']

LINK_BYTES = 512  # a link's directory entry, and the inode that a symbolic link takes on some file systems

Files = dict[str, dict[str, Path]]  # 'lq' or 'gt' -> frame -> source file


class Fault(NamedTuple):
    """A fault and the clip that has it; None if it does not concern a particular clip."""

    clip: Clip | None
    text: str


@dataclass(frozen=True)
class CheckedClip:
    """A clip without faults: its source files by side and frame, and their common (height, width)."""

    clip: Clip
    files: Files
    size: tuple[int, int]


def prepare_layout(
    plan: Plan,
    dst: Path,
    copy: bool = False,
    allow_partial: bool = False,
    databases: Sequence[tree.DatabaseKind] = (),
) -> tree.Prepared:
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
    tree.refuse_others(dst, plan.kind, plan.variant)
    held = tree.complete(dst, plan.kind, plan.variant)
    if held is not None and not (copy and held['placed'] == 'linked'):
        return tree.Prepared(held, tree.write_databases(dst, databases), was_complete=True)
    _require_a_clip(plan)
    clips, faults = check(plan)
    if faults and not (allow_partial and clips):
        raise _error(faults, plan, len(clips))
    files = {
        f'{tree.clip_folder(checked.clip.part, side, checked.clip.name)}/{frame}{source.suffix}': source
        for checked in clips
        for side, frames in checked.files.items()
        for frame, source in frames.items()
    }
    tree.refuse_unplanned(dst, files, plan.kind)
    tree.begin(dst, plan.kind, plan.variant)
    lengths = {path: source.stat().st_size for path, source in files.items()}
    require_space(dst, tree.bytes_needed(dst, databases, lengths), 'the databases')
    _place(dst, files, copy)
    written = tree.write_databases(dst, databases)
    details: dict[str, Any] = {'source': str(plan.source.resolve()), 'placed': 'copied' if copy else 'linked'}
    if faults:
        details['left_out'] = [fault.text for fault in faults]
    members = [tree.TreeClip(c.clip.part, c.clip.name, len(c.files['lq']), c.size) for c in clips]
    content = tree.finish(dst, plan.kind, plan.variant, members, details)
    return tree.Prepared(content, written, was_complete=False)


def check(plan: Plan) -> tuple[list[CheckedClip], list[Fault]]:
    """Checks every folder, every name, and the header and end of every file.

    Returns:
        The clips without faults, in the plan's order, and all faults.
    """
    faults: list[Fault] = [Fault(None, f'{path} is not a clip of {plan.kind}; move it away') for path in plan.unknown]
    for part, total in plan.totals.items():
        count = sum(clip.part == part for clip in plan.clips)
        if count != total:
            faults.append(Fault(None, f'{part} has {count} of {total} clips'))
    images = functools.cache(_images)  # lists a folder shared by several clips only once
    found = {clip: _listed(clip, images, faults) for clip in plan.clips}
    sizes = _inspected(found, faults)
    bad = {fault.clip for fault in faults}
    checked = []
    for clip, files in found.items():
        if clip not in bad:
            (first, size), *others = sizes[clip].items()
            odd = next(((path, other) for path, other in others if other != size), None)
            if odd is None:
                checked.append(CheckedClip(clip, files, size))
            else:
                text = f'{odd[0]} is {_text(odd[1])}, but {first} is {_text(size)}'
                faults.append(Fault(clip, f'{_label(clip)}: {text}; all its frames must have one size'))
    return checked, faults


def _require_a_clip(plan: Plan) -> None:
    """Raises DBLRError if no clip has a folder, as in a folder above or below the data set's."""
    if not any(folder.is_dir() for clip in plan.clips for folder in clip.folders.values()):
        raise DBLRError(
            f'{plan.source} has no clip of {plan.kind}; give the folder that has (the layout is {plan.layout})'
        )


def _error(faults: list[Fault], plan: Plan, usable: int) -> DBLRError:
    """Returns an error that lists the first ten faults, counts the others, and says what to do."""
    fix = f'download again what is missing or damaged (the layout is {plan.layout})'
    if usable:
        fix += f', or continue with the {counted(usable, "complete clip")}: --allow-partial'
    head = f'{counted(len(faults), "fault")} in {plan.source}:'
    return DBLRError('\n  '.join([head, *first_faults([fault.text for fault in faults])]) + f'\n{fix}')


def _listed(clip: Clip, images: Callable[[Path], list[str]], faults: list[Fault]) -> Files:
    """Returns the clip's files; reports missing folders, frames without a counterpart, and wrong counts."""
    missing = [str(folder) for folder in clip.folders.values() if not folder.is_dir()]
    if missing:
        faults.append(Fault(clip, f'{_label(clip)} is missing: no folder {" and no ".join(missing)}'))
        return {}
    try:
        files = {side: _frame_files(folder, images(folder), clip.stem) for side, folder in clip.folders.items()}
    except (DBLRError, OSError) as error:
        faults.append(Fault(clip, f'{_label(clip)}: {error}'))
        return {}
    for side, other in (('lq', 'gt'), ('gt', 'lq')) if clip.gt else ():
        faults += [
            Fault(clip, f'{_label(clip)}: {path} has no counterpart in {clip.folders[other]}')
            for frame, path in files[side].items()
            if frame not in files[other]
        ]
    for side, folder in clip.folders.items():
        if not files[side] or clip.frames not in (None, len(files[side])):
            count = len(files[side])
            found = f'{count} of {counted(clip.frames, "frame")}' if clip.frames else counted(count, 'frame')
            faults.append(Fault(clip, f'{_label(clip)}: {folder} has {found}{_gaps(files[side])}'))
    return files


def _images(folder: Path) -> list[str]:
    """Returns the names of a folder's images, in natural order; raises DBLRError if one is not UTF-8."""
    names = sorted(filter(is_image, os.listdir(folder)), key=natural)
    refuse_undecodable(folder, names)
    return names


def _frame_files(folder: Path, images: list[str], stem: str) -> dict[str, Path]:
    """Returns frame -> file for a clip's images; raises DBLRError if there are two files for one frame."""
    files: dict[str, Path] = {}
    pattern = re.compile(stem)
    for name in images:  # in KITTI, each clip's folder contains the images of all clips
        match = pattern.fullmatch(name.rpartition('.')[0])
        if match and match[1] in files:
            raise DBLRError(f'{folder} has two files of one frame: {files[match[1]].name} and {name}; remove one')
        if match:
            files[match[1]] = folder / name
    return files


def _gaps(frames: Iterable[str]) -> str:
    """Returns a hint listing gaps in the numbering of a clip's frames."""
    names = list(frames)
    if not all(name.isdecimal() for name in names) or not names:
        return ''
    numbers = sorted(map(int, names))
    gaps = (number for before, after in pairwise(numbers) for number in range(before + 1, after))
    missing = [f'{number:0{len(names[0])}d}' for number in islice(gaps, 4)]  # a gap can be millions of frames wide
    return f': {", ".join(missing[:3])}{" ..." if len(missing) > 3 else ""} missing' if missing else ''


def _inspected(found: dict[Clip, Files], faults: list[Fault]) -> dict[Clip, dict[Path, tuple[int, int]]]:
    """Returns the size of every intact file; reports files that are empty, truncated or not images."""

    def inspect(task: tuple[Clip, Path]) -> tuple[int, int] | str:
        try:
            return inspected_size(task[1])
        except DBLRError as error:
            return str(error)

    tasks = [(clip, path) for clip, files in found.items() for frames in files.values() for path in frames.values()]
    sizes: dict[Clip, dict[Path, tuple[int, int]]] = {clip: {} for clip in found}
    results = parallel(inspect, tasks, DISK_THREADS, len(tasks), 'checking')
    for (clip, path), size in zip(tasks, results, strict=True):
        if isinstance(size, str):
            faults.append(Fault(clip, f'{_label(clip)}: {size}'))
        else:
            sizes[clip][path] = size
    return sizes


def _label(clip: Clip) -> str:
    return f"clip '{clip.part}/{clip.name}'"


def _text(size: tuple[int, int]) -> str:
    return f'{size[1]}x{size[0]} (w x h)'


def _place(dst: Path, files: dict[str, Path], copy: bool) -> None:
    """Links or copies files into the tree, skipping those already there."""
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
