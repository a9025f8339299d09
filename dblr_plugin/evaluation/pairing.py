"""Restored frames beside their ground truth: opened, named alike, and checked before any work starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dblr_plugin.data import FolderStore, FrameStore, index_pairs, open_store
from dblr_plugin.data.images import is_image
from dblr_plugin.data.store import _frame_files
from dblr_plugin.evaluation.protocols import Protocol

__all__ = ['NamedFrames', 'open_frames', 'pair_frames']

#: clip -> frame as the ground truth calls it -> frame as the store calls it
Names = Mapping[str, Mapping[str, str]]


class _OneClip(FolderStore):
    """A folder of one clip's frames, ``folder/<frame>.<suffix>``."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._files = {folder.resolve().name: _frame_files(folder)}

    def path(self, clip: str, frame: str) -> Path:
        """Returns the file of a frame."""
        return self.root / self._files[clip][frame]


class NamedFrames:
    """Some frames of a store, under the names by which they are paired; read like a store."""

    def __init__(self, store: FrameStore, names: Names, clip_names: Mapping[str, str]) -> None:
        self.root = store.root
        self._store = store
        self._names = names
        self._clip_names = clip_names

    def clips(self) -> dict[str, tuple[str, ...]]:
        """Returns clip name -> frame names."""
        return {clip: tuple(frames) for clip, frames in self._names.items()}

    def where(self, clip: str, frame: str) -> str:
        """Returns the path of a frame in the store."""
        return self._store.where(*self._key(clip, frame))

    def inspect(self, clip: str, frame: str) -> tuple[int, int]:
        """Returns (height, width); raises DBLRError for a damaged frame."""
        return self._store.inspect(*self._key(clip, frame))

    def read(self, clip: str, frame: str) -> np.ndarray:
        """Decodes one frame to uint8 (h, w, 3), BGR."""
        return self._store.read(*self._key(clip, frame))

    def _key(self, clip: str, frame: str) -> tuple[str, str]:
        return self._clip_names.get(clip, clip), self._names[clip][frame]


def open_frames(root: str | Path) -> FrameStore:
    """Opens a folder of clips, an LMDB database, or a folder that holds nothing but one clip's frames.

    Raises:
        DBLRError: There is nothing usable at ``root``.
    """
    folder = Path(root)
    if folder.suffix != '.lmdb' and folder.is_dir():
        entries = list(os.scandir(folder))
        if any(is_image(entry.name) for entry in entries) and not any(entry.is_dir() for entry in entries):
            return _OneClip(folder)
    return open_store(root)


def pair_frames(
    results: FrameStore, truth: FrameStore, protocols: Sequence[Protocol]
) -> tuple[NamedFrames, NamedFrames]:
    """Pairs restored frames with the ground truth by name and checks every one of them.

    Restored frames may carry a suffix, as validation gives it (``00000000_net``), the same in all of a clip. Two
    folders of one clip each are paired whatever they are called. The ground truth may have more frames where no
    protocol scores them.

    Returns:
        Both sides, with the same clips and frames.

    Raises:
        DBLRError: There are faults; one message lists them all.
    """
    restored, sharp = results.clips(), truth.clips()
    clip_names = {}
    if isinstance(results, _OneClip) and isinstance(truth, _OneClip):
        clip_names = dict(zip(sharp, restored, strict=True))
        restored = dict(zip(sharp, restored.values(), strict=True))
    ours = {clip: _without_suffix(frames, sharp.get(clip, ())) for clip, frames in restored.items()}
    theirs = {}
    for clip, frames in sharp.items():
        scored = {index for protocol in protocols for index in protocol.frames(len(frames))}
        there = ours.get(clip, {})
        theirs[clip] = {frame: frame for i, frame in enumerate(frames) if i in scored or frame in there}
    sides = NamedFrames(results, ours, clip_names), NamedFrames(truth, theirs, {})
    index_pairs(*sides)
    return sides


def _without_suffix(frames: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """The names without a suffix ``_...`` that all of them have and no known name has -> the names."""
    names = {frame: frame for frame in frames}
    if not frames or names.keys() & set(known):
        return names
    stem = max((name for name in known if frames[0].startswith(f'{name}_')), key=len, default=None)
    if stem is None:
        return names
    suffix = frames[0].removeprefix(stem)
    if not all(frame.endswith(suffix) for frame in frames):
        return names
    return {frame.removesuffix(suffix): frame for frame in frames}
