"""Scores already restored frames in folders, LMDB databases or videos under named protocols."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dblr_plugin.data import FolderStore, FrameStore, index_pairs, open_store
from dblr_plugin.data.images import is_image, subfolders
from dblr_plugin.data.store import frame_files
from dblr_plugin.errors import DBLRError, counted, raise_faults
from dblr_plugin.evaluation.metrics import find_metric
from dblr_plugin.evaluation.protocols import Protocol
from dblr_plugin.evaluation.scores import FramePair, Row, score_frame, summarise
from dblr_plugin.processes import usable_cores
from dblr_plugin.threads import parallel
from dblr_plugin.video import open_source
from dblr_plugin.video.frames import eight_bits

__all__ = ['evaluate']

_log = logging.getLogger(__name__)


class _OneClip(FolderStore):
    """A folder with the frames of one clip, ``folder/<frame>.<suffix>``."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._files = {folder.resolve().name: frame_files(folder)}

    def path(self, clip: str, frame: str) -> Path:
        return self.root / self._files[clip][frame]


class _NamedFrames:
    """Frames of a store under the names they are paired by; reads like a store.

    Args:
        store: The store.
        keys: Clip -> frame -> clip and frame in the store.
    """

    def __init__(self, store: FrameStore, keys: Mapping[str, Mapping[str, tuple[str, str]]]) -> None:
        self.root, self._store, self._keys = store.root, store, keys

    def clips(self) -> dict[str, tuple[str, ...]]:
        return {clip: tuple(frames) for clip, frames in self._keys.items()}

    def where(self, clip: str, frame: str) -> str:
        return self._store.where(*self._keys[clip][frame])

    def inspect(self, clip: str, frame: str) -> tuple[int, int]:
        return self._store.inspect(*self._keys[clip][frame])

    def read(self, clip: str, frame: str) -> np.ndarray:
        return self._store.read(*self._keys[clip][frame])


def _open_frames(root: Path) -> FrameStore:
    """Opens a folder of clips, an LMDB database, or a folder with only one clip's frames."""
    is_folder = root.suffix != '.lmdb' and root.is_dir()
    is_clip = is_folder and any(map(is_image, os.listdir(root))) and not subfolders(root)
    return _OneClip(root) if is_clip else open_store(root)


def _pair_frames(
    results: FrameStore, truth: FrameStore, protocols: Sequence[Protocol]
) -> tuple[_NamedFrames, _NamedFrames]:
    """Pairs restored frames with the ground truth by name and checks every one of them.

    Restored frames may carry a suffix as added by validation (``00000000_net``), the same throughout a clip. Two
    folders of one clip each are paired whatever their names. The ground truth may have extra frames if no protocol
    needs them.
    """
    sharp, are_single_clips = truth.clips(), isinstance(results, _OneClip) and isinstance(truth, _OneClip)
    ours = {}
    for clip, frames in results.clips().items():
        name = next(iter(sharp)) if are_single_clips else clip
        names = _without_suffix(frames, sharp.get(name, ()))
        ours[name] = {paired: (clip, frame) for paired, frame in names.items()}
    theirs = {}
    for clip, frames in sharp.items():
        needed = {index for protocol in protocols for index in _needed(protocol, len(frames))}
        there = ours.get(clip, {})
        theirs[clip] = {frame: (clip, frame) for i, frame in enumerate(frames) if i in needed or frame in there}
    sides = _NamedFrames(results, ours), _NamedFrames(truth, theirs)
    index_pairs(*sides)
    return sides


def _needed(protocol: Protocol, count: int) -> set[int]:
    """Returns the indices of the frames that a protocol reads of a clip: those it scores, and perhaps those before."""
    scored = set(protocol.frames(count))
    return scored | {index - 1 for index in scored if index} if protocol.needs_before else scored


def _without_suffix(frames: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Maps names without their common suffix ``_...``, if no known name has it, to the full names."""
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


@dataclass(frozen=True)
class _Task:
    """A frame to score, with a function that reads it and, if needed, the previous frame."""

    clip: str
    frame: str
    protocols: list[Protocol]
    images: Callable[[], tuple[FramePair, FramePair | None]]

    def score(self, faults: list[str], grey: set[str]) -> list[Row]:
        """Scores the frame; read errors are collected in ``faults``, after which further frames are only read.

        The clip is added to ``grey`` if the restored frame has no colour, but the ground truth has.
        """
        try:
            images = self.images()
        except DBLRError as error:
            faults.append(str(error))
        if faults:
            return []
        restored, truth = images[0]
        if truth is not None and _is_grey(restored) and not _is_grey(truth):
            grey.add(self.clip)
        return list(score_frame(self.protocols, self.clip, self.frame, *images))


def evaluate(
    results: str | Path, truth: str | Path | None, protocols: Sequence[Protocol], progress: bool = True
) -> list[dict]:
    """Scores restored frames on all cores.

    Args:
        results: Folder of clips, LMDB database, folder of one clip's frames, or video. Frame names may have a suffix as
            added by validation, such as ``00000000_net``.
        truth: The same for the sharp frames. Those that no protocol needs need no restored frame. Without ground
            truth, only metrics that need none are scored.
        protocols: The protocols to score by.
        progress: Show a progress bar.

    Returns:
        The entries of :func:`dblr_plugin.evaluation.scores.summarise`, in the order of the protocols.

    Raises:
        DBLRError: Clips or frames do not pair or cannot be read, or every metric needs the missing ground truth. All
            pairing faults are listed at once.
    """
    if truth is None:
        protocols = _without_truth(protocols)
    paths = [Path(path) for path in (results, truth) if path is not None]
    tasks, count = (_tasks_of_videos if any(path.is_file() for path in paths) else _tasks_of_frames)(paths, protocols)
    faults: list[str] = []
    grey: set[str] = set()
    score = functools.partial(_Task.score, faults=faults, grey=grey)
    with warnings.catch_warnings():
        # NIQE's, of blocks without texture, such as a film's black bars, which it leaves out
        warnings.filterwarnings('ignore', 'Mean of empty slice|Degrees of freedom', RuntimeWarning)
        rows = list(parallel(score, tasks, usable_cores(), count, 'Evaluate', 'frame', progress))
    raise_faults(sorted(set(faults)), 'frames')  # a frame may be read twice
    if not any(rows):
        raise DBLRError(f'{results}: no metric can score any of its frames; NIQE, for example, needs texture')
    if grey:
        _log.warning(
            f'{results}: {", ".join(sorted(grey))}: restored frames are grey, and the ground truth has colour; scores '
            'of RGB are of little use, those of luma (--protocol luma) are not affected'
        )
    return summarise([row for frame in rows for row in frame], protocols)


def _without_truth(protocols: Sequence[Protocol]) -> list[Protocol]:
    """Reduces protocols to the metrics that need no ground truth."""
    left = [
        replace(
            protocol,
            metrics={
                name: settings
                for name, settings in protocol.metrics.items()
                if not find_metric(settings['type']).needs_gt
            },
        )
        for protocol in protocols
    ]
    if not any(protocol.metrics for protocol in left):
        raise DBLRError('all metrics compare with the ground truth; give GT, or a metric such as niqe')
    return left


def _tasks_of_frames(paths: list[Path], protocols: Sequence[Protocol]) -> tuple[Iterator[_Task], int]:
    """Tasks for the frames of folders or databases, which each task reads itself, and their number."""
    stores = [_open_frames(path) for path in paths]
    clips = stores[-1].clips()
    sides: Sequence[FrameStore | _NamedFrames] = stores
    if len(stores) == 2:
        sides = _pair_frames(stores[0], stores[1], protocols)
    else:
        index_pairs(stores[0])
    _check_sizes(protocols, {clip: stores[-1].inspect(clip, frames[0]) for clip, frames in clips.items()})

    def read(clip: str, frames: Sequence[str], index: int, needs_before: bool) -> tuple[FramePair, FramePair | None]:
        pair, *before = [
            _paired([side.read(clip, frames[i]) for side in sides]) for i in (index, index - 1)[: 1 + needs_before]
        ]
        return pair, before[0] if before else None

    tasks = []
    for clip, frames in clips.items():
        for index, frame in enumerate(frames):
            by = [protocol for protocol in protocols if index in protocol.frames(len(frames))]
            if by:
                needs_before = index > 0 and any(protocol.needs_before for protocol in by)
                tasks.append(_Task(clip, frame, by, functools.partial(read, clip, frames, index, needs_before)))
    return iter(tasks), len(tasks)


def _tasks_of_videos(paths: list[Path], protocols: Sequence[Protocol]) -> tuple[Iterator[_Task], int]:
    """Tasks for the frames of one video, or two of the same content, decoded in order, and their number."""
    sizes = [_size_of_video(path) for path in paths]
    if len(set(sizes)) > 1:
        (height, width), (their_height, their_width) = sizes
        raise DBLRError(
            f'{paths[0]} is {width}x{height} (w x h), and {paths[1]} {their_width}x{their_height}; both must have one '
            'size'
        )
    _check_sizes(protocols, {paths[0].stem: sizes[0]})
    counts = [sum(1 for _ in _decoded(path)) for path in paths]
    if len(set(counts)) > 1:
        raise DBLRError(
            f'{paths[0]} has {counted(counts[0], "frame")}, and {paths[1]} {counts[1]}; both must show the same'
        )

    def tasks() -> Iterator[_Task]:
        before: FramePair | None = None
        for index, images in enumerate(zip(*map(_decoded, paths), strict=True)):
            pair = _paired(images)
            by = [protocol for protocol in protocols if index in protocol.frames(counts[0])]
            yield _Task(paths[0].stem, f'{index:08d}', by, functools.partial(_as_they_are, pair, before))
            before = pair

    return tasks(), counts[0]


def _check_sizes(protocols: Sequence[Protocol], sizes: Mapping[str, tuple[int, int]]) -> None:
    for protocol in protocols:
        protocol.check_sizes(sizes)


def _size_of_video(path: Path) -> tuple[int, int]:
    with open_source(path) as source:
        return source.size


def _is_grey(bgr: np.ndarray) -> bool:
    return np.array_equal(bgr[..., 0], bgr[..., 1]) and np.array_equal(bgr[..., 0], bgr[..., 2])


def _paired(images: Sequence[np.ndarray]) -> FramePair:
    return images[0], images[1] if len(images) == 2 else None


def _as_they_are(pair: FramePair, before: FramePair | None) -> tuple[FramePair, FramePair | None]:
    return pair, before


def _decoded(path: Path) -> Iterator[np.ndarray]:
    """Yields a video's frames: BGR ``(h, w, 3)`` in [0, 255], rounded to 8 bits."""
    with open_source(path) as source:
        for frame in source:
            yield np.ascontiguousarray(eight_bits(frame.pixels)[..., ::-1])
