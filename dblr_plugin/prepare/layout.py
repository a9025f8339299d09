"""Carries out a plan: checks the sources, links or copies them, and writes the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import require_space
from dblr_plugin.prepare import manifest, tree
from dblr_plugin.prepare.check import CheckedClip, Fault, check, raise_faults
from dblr_plugin.prepare.databases import DatabaseKind, bytes_needed, write_databases
from dblr_plugin.prepare.plan import Plan

__all__ = ['Prepared', 'finish_databases', 'prepare_layout']


@dataclass(frozen=True)
class Prepared:
    """What a preparation left behind.

    Args:
        manifest: The content of ``dataset.json``.
        databases: The databases asked for.
        was_complete: Whether the tree was whole before, so that it was only verified.
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
    """Brings a data set into the tree ``dst/{train,test}/{lq,gt}/<clip>/``; goes on where an earlier run stopped.

    Args:
        plan: The data set.
        dst: The tree's folder. ``dataset.json`` appears there when everything is in place.
        copy: Copy the files; otherwise they are linked.
        allow_partial: Leave out the clips that have faults; otherwise any fault stops everything.
        databases: What to make of each folder of clips.

    Raises:
        DBLRError: The sources have faults, ``dst`` holds something else, or the disk is full.
    """
    manifest.refuse_others(dst, plan.kind, plan.variant)
    held = manifest.complete(dst, plan.kind, plan.variant)
    if held is not None and not (copy and held['placed'] == 'linked'):
        return Prepared(held, finish_databases(dst, databases), was_complete=True)
    clips, faults = check(plan)
    if not (allow_partial and clips):
        raise_faults([fault.text for fault in faults], plan, len(clips))
    files = tree.targets(clips)
    if unexpected_files := tree.unplanned(dst, files):
        raise DBLRError(
            f'{dst} has {len(unexpected_files)} frames that are none of {plan.kind}, such as {unexpected_files[0]}; '
            'remove them'
        )
    manifest.begin(dst, plan.kind, plan.variant)
    lengths = {path: source.stat().st_size for path, source in files.items()}
    require_space(dst, bytes_needed(dst, databases, lengths), 'the databases')
    tree.place(dst, files, copy)
    written = write_databases(dst, databases)
    content = manifest.finish(dst, plan.kind, plan.variant, _tree_clips(clips), _details(plan, copy, faults))
    return Prepared(content, written, was_complete=False)


def finish_databases(dst: Path, databases: Sequence[DatabaseKind]) -> list[Path]:
    """Writes the databases that a whole tree still lacks, and returns all that were asked for."""
    require_space(dst, bytes_needed(dst, databases, manifest.files_below(dst)), 'the databases')
    return write_databases(dst, databases)


def _tree_clips(clips: list[CheckedClip]) -> list[manifest.TreeClip]:
    return [manifest.TreeClip(c.clip.part, c.clip.name, len(c.files['lq']), c.size) for c in clips]


def _details(plan: Plan, copy: bool, faults: list[Fault]) -> dict[str, Any]:
    """What ``dataset.json`` holds beyond counts; ``left_out`` is missing when nothing was."""
    details = {'source': str(plan.source.resolve()), 'placed': 'copied' if copy else 'linked'}
    return details | ({'left_out': [fault.text for fault in faults]} if faults else {})
