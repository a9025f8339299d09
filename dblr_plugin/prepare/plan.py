"""The plan of a data set: which folder is which clip, and how many frames it must have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = ['PARTS', 'Clip', 'Plan', 'existing', 'subfolders', 'unknown_folders']

PARTS = ('train', 'test')


@dataclass(frozen=True)
class Clip:
    """One clip of the tree, and the folders its frames come from.

    Args:
        part: ``train`` or ``test``.
        name: The clip's folder in the tree.
        lq: Folder of the blurry frames.
        gt: Folder of the sharp frames, or None without ground truth.
        frames: How many frames there must be, or None where that is not published.
        stem: Pattern of the file names, without suffix, that belong to the clip; its first group is the frame's name.
    """

    part: str
    name: str
    lq: Path
    gt: Path | None
    frames: int | None = None
    stem: str = '(.+)'

    @property
    def folders(self) -> dict[str, Path]:
        """``lq``, and ``gt`` where there is ground truth -> folder."""
        return {'lq': self.lq} if self.gt is None else {'lq': self.lq, 'gt': self.gt}


@dataclass(frozen=True)
class Plan:
    """A data set as its authors lay it out.

    Args:
        kind: The data set, as the command calls it.
        variant: What was chosen where the data set has several forms of a frame; ``''`` where it has one.
        source: The folder that ``layout`` starts at.
        layout: How the files lie below ``source``, for messages.
        clips: All clips there must be; where their names are not published, those that were found.
        totals: Part -> number of clips, where their names are not published.
        unknown: Folders that lie where clips do and are none.
    """

    kind: str
    variant: str
    source: Path
    layout: str
    clips: tuple[Clip, ...]
    totals: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[Path, ...] = ()


def existing(src: Path, folder: str) -> Path:
    """Returns ``src/folder`` if it exists, otherwise ``src``: users give either.

    Raises:
        DBLRError: ``src`` is no folder.
    """
    if not src.is_dir():
        reason = 'is not a folder; unpack it first' if src.exists() else 'does not exist; check the path'
        raise DBLRError(f'{src} {reason}')
    return src / folder if (src / folder).is_dir() else src


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the folders in ``folder``, in natural order; none when it does not exist.

    Raises:
        DBLRError: The folder cannot be listed, or a name is not UTF-8.
    """
    from dblr_plugin.data.images import natural, refuse_undecodable  # here, because its package imports torch

    if not folder.is_dir():
        return []
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith('.')]
    except OSError as error:
        raise DBLRError(f'{folder} cannot be listed ({error.strerror}); fix its permissions') from error
    refuse_undecodable(folder, names)
    return sorted(names, key=natural)


def unknown_folders(folder: Path, known: Mapping[str, object]) -> list[Path]:
    """Returns the folders in ``folder`` whose names are not ``known``."""
    return [folder / name for name in subfolders(folder) if name not in known]
