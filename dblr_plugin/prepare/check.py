"""Compares the files on disk with the plan, and reports all faults before anything is written."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from dblr_plugin.data.images import inspected_size, is_image, natural, refuse_undecodable
from dblr_plugin.errors import DBLRError, counted, first_faults
from dblr_plugin.prepare.data_sets import Clip, Plan
from dblr_plugin.threads import DISK_THREADS, parallel

__all__ = ['CheckedClip', 'Fault', 'check', 'raise_faults']

Files = dict[str, dict[str, Path]]  # 'lq' or 'gt' -> frame -> source file


@dataclass(frozen=True)
class Fault:
    """A fault and the clip that has it; None if it does not concern a particular clip."""

    clip: Clip | None
    text: str


@dataclass(frozen=True)
class CheckedClip:
    """A clip without faults: its source files by side and frame, and their common (height, width)."""

    clip: Clip
    files: Files
    size: tuple[int, int]


def check(plan: Plan) -> tuple[list[CheckedClip], list[Fault]]:
    """Checks every folder, every name, and the header and end of every file.

    Returns:
        The clips without faults, in the plan's order, and all faults.
    """
    faults = [Fault(None, f'{path} is not a clip of {plan.kind}; move it away') for path in plan.unknown]
    faults += _total_faults(plan)
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


def raise_faults(faults: Iterable[str], plan: Plan, usable: int) -> None:
    """Raises a DBLRError that lists the first ten faults, counts the rest, and says what to do; does nothing if none.

    Args:
        faults: The faults found.
        plan: The plan that the files were compared with.
        usable: Number of clips without faults.
    """
    texts = list(faults)
    if not texts:
        return
    fix = f'download again what is missing or damaged (the layout is {plan.layout})'
    if usable:
        fix += f', or continue with the {counted(usable, "complete clip")}: --allow-partial'
    head = f'{counted(len(texts), "fault")} in {plan.source}:'
    raise DBLRError('\n  '.join([head, *first_faults(texts)]) + f'\n{fix}')


def _total_faults(plan: Plan) -> list[Fault]:
    """Returns faults for wrong numbers of clips in datasets whose clip names are not published."""
    counts = {part: sum(clip.part == part for clip in plan.clips) for part in plan.totals}
    return [
        Fault(None, f'{part} has {counts[part]} of {total} clips')
        for part, total in plan.totals.items()
        if counts[part] != total
    ]


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
