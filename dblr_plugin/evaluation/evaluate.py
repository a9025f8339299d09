"""Scores frames that are already restored: two folders or LMDB databases, under named protocols."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from dblr_plugin.evaluation.pairing import open_frames, pair_frames
from dblr_plugin.evaluation.protocols import Protocol
from dblr_plugin.evaluation.scores import Row, summarise

__all__ = ['evaluate']

#: A frame to score: clip, frame, the protocols that score it
Task = tuple[str, str, list[Protocol]]


def evaluate(
    results: str | Path, truth: str | Path, protocols: Sequence[Protocol], progress: bool = True
) -> list[dict]:
    """Scores restored frames against the ground truth, on all cores.

    Args:
        results: Folder of clips, LMDB database, or folder of one clip's frames. Frames may be named as validation
            names them, with a suffix such as ``00000000_net``.
        truth: The same for the sharp frames. Those that no protocol scores need no restored frame.
        protocols: What to score them by.
        progress: Show a progress bar.

    Returns:
        The entries of :func:`dblr_plugin.evaluation.summarise`, in the order of the protocols.

    Raises:
        DBLRError: Clips or frames do not pair, or cannot be read. Faults of pairing are listed all at once.
    """
    truth_store = open_frames(truth)
    restored, sharp = pair_frames(open_frames(results), truth_store, protocols)

    def score(task: Task) -> list[Row]:
        clip, frame, by = task
        images = restored.read(clip, frame), sharp.read(clip, frame)
        return [
            (protocol.name, clip, metric, value) for protocol in by for metric, value in protocol.score(*images).items()
        ]

    rows = _on_all_cores(score, _tasks(truth_store.clips(), protocols), progress)
    return summarise([row for frame in rows for row in frame], protocols)


def _tasks(clips: dict[str, tuple[str, ...]], protocols: Sequence[Protocol]) -> list[Task]:
    tasks = []
    for clip, frames in clips.items():
        for index, frame in enumerate(frames):
            by = [protocol for protocol in protocols if index in protocol.frames(len(frames))]
            if by:
                tasks.append((clip, frame, by))
    return tasks


def _on_all_cores(score: Callable[[Task], list[Row]], tasks: list[Task], progress: bool) -> list[list[Row]]:
    """The results in the order of the tasks. Threads do, as decoding and arithmetic on frames release Python's lock."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        return list(tqdm(pool.map(score, tasks), total=len(tasks), desc='Evaluate', unit='frame', disable=not progress))
    finally:
        # after an error or Ctrl-C nobody wants the frames that are still waiting
        pool.shutdown(cancel_futures=True)
