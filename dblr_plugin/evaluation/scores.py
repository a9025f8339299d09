"""Averages the scores of single frames, and writes the means as JSON and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS, Protocol
from dblr_plugin.files import atomic_write

__all__ = ['FramePair', 'Row', 'format_table', 'score_frame', 'summarise', 'write_json']

#: A restored frame, BGR ``(h, w, 3)`` in [0, 255]; and its ground truth, or None
FramePair = tuple[np.ndarray, np.ndarray | None]
#: One frame's score: protocol, clip, metric, value
Row = tuple[str, str, str, float]


def score_frame(
    protocols: Iterable[Protocol], clip: str, frame: str, images: FramePair, before: FramePair | None = None
) -> Iterator[Row]:
    """Scores one frame by several protocols; images and before as for :meth:`Protocol.score`.

    Raises:
        DBLRError: A metric cannot score it.
    """
    for protocol in protocols:
        try:
            scores = protocol.score(*images, before)
        except DBLRError as error:
            raise DBLRError(f'{clip}/{frame}, protocol {protocol.name}: {error}') from error
        for metric, value in scores.items():
            yield protocol.name, clip, metric, value


def summarise(rows: Iterable[Row], protocols: Iterable[Protocol]) -> list[dict]:
    """Turns the scores of a data set's frames into figures, one entry for each protocol that has any.

    Args:
        rows: The scores, the frames of each clip in order.
        protocols: Those that the rows name.

    Returns:
        Entries of ``protocol``, its name; ``mean``, its figures for the data set, metric -> value; ``clip_mean``, the
        mean of clip means, and ``frame_mean``, the mean over all frames, of which it is one; ``clips``, the means of
        each clip; ``frames``, how many frames of each clip were scored.
    """
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    for protocol, clip, metric, value in rows:
        scores.setdefault(protocol, {}).setdefault(clip, {}).setdefault(metric, []).append(value)
    return [_entry(protocol, scores[protocol.name]) for protocol in protocols if protocol.name in scores]


def _entry(protocol: Protocol, clips: dict[str, dict[str, list[float]]]) -> dict:
    metrics = list(dict.fromkeys(metric for scores in clips.values() for metric in scores))  # a clip may lack some
    means = {clip: {m: float(np.mean(values)) for m, values in scores.items()} for clip, scores in clips.items()}
    clip_mean = {m: float(np.mean([clip[m] for clip in means.values() if m in clip])) for m in metrics}
    every = {m: [scores[m] for scores in clips.values() if m in scores] for m in metrics}
    frame_mean = {m: float(np.mean(np.concatenate(values))) for m, values in every.items()}
    return {
        'protocol': protocol.name,
        'mean': clip_mean if protocol.mean == 'clips' else frame_mean,
        'clip_mean': clip_mean,
        'frame_mean': frame_mean,
        'clips': means,
        'frames': {clip: max(map(len, scores.values())) for clip, scores in clips.items()},
    }


def format_table(entry: dict) -> str:
    """Formats an entry of :func:`summarise`, also one read from JSON.

    There is a row for each clip, each mean and, where it was scored, the blurry input. The mean that is the protocol's
    own is marked with ``*``.
    """
    metrics = list(entry['mean'])
    protocol = PROTOCOLS.get(entry['protocol'])  # none for settings of val.metrics that have no name
    figure = 'frame mean' if protocol and protocol.mean == 'frames' else 'clip mean'
    width = max(len(name) for name in (*entry['clips'], 'blurry input')) + 2
    rows = [(clip, entry['frames'][clip], values) for clip, values in entry['clips'].items()]
    total = sum(entry['frames'].values())
    rows += [
        (f'{title} *' if title == figure else title, total, entry[title.replace(' ', '_')])
        for title in ('clip mean', 'frame mean')
    ]
    if entry.get('input'):
        rows.append(('blurry input', total, entry['input']['mean']))
    columns = {metric: max(10, len(metric) + 2) for metric in metrics}
    lines = [
        f'protocol {entry["protocol"]}' + (f': {protocol.meaning}' if protocol else ''),
        f'{"clip":<{width}}{"frames":>7}' + ''.join(f'{m.upper():>{column}}' for m, column in columns.items()),
    ]
    lines += [
        f'{name:<{width}}{frames:>7}' + ''.join(_cell(values.get(m), column) for m, column in columns.items())
        for name, frames, values in rows
    ]
    return '\n'.join(lines)


def _cell(value: float | str | None, width: int) -> str:
    return f'{"-":>{width}}' if value is None else f'{float(value):>{width}.4f}'


def write_json(path: Path, content: object) -> None:
    """Writes JSON beside ``path`` and renames it, so that ``path`` is never half written.

    JSON has no infinity, which is the PSNR of equal frames, and no NaN: they are written as the strings ``"inf"`` and
    ``"nan"``, which ``float()`` reads.
    """
    with atomic_write(path, sync=True) as partial:
        partial.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + '\n')


def _finite(content: object) -> object:
    """The same content with the numbers that JSON lacks as strings."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content
