"""Averages frame scores and writes the means as JSON and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.metrics import better_of
from dblr_plugin.evaluation.protocols import PROTOCOLS, Protocol
from dblr_plugin.files import atomic_write

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ['FramePair', 'Row', 'ValidationRecord', 'format_table', 'score_frame', 'summarise', 'write_json']

#: A restored frame, BGR ``(h, w, 3)`` in [0, 255], and its ground truth or None
FramePair = tuple[np.ndarray, np.ndarray | None]
#: One frame's score: protocol, clip, metric, value
Row = tuple[str, str, str, float]


def score_frame(
    protocols: Iterable[Protocol], clip: str, frame: str, images: FramePair, before: FramePair | None = None
) -> Iterator[Row]:
    """Scores one frame by several protocols; ``images`` and ``before`` as for :meth:`Protocol.score`.

    All scores of a frame that holds NaN are NaN: rounded to integers, it would score as a black one. So are those of
    the next frame by protocols that compare the two.

    Raises:
        DBLRError: A metric cannot score the frame.
    """
    holds_nan, held_nan = (pair is not None and np.isnan(pair[0].max()) for pair in (images, before))
    for protocol in protocols:
        has_nan = holds_nan or (held_nan and protocol.needs_before)
        try:
            with np.errstate(invalid='ignore' if has_nan else None):
                scores = protocol.score(*images, before)
        except DBLRError as error:
            raise DBLRError(f'{clip}/{frame}, protocol {protocol.name}: {error}') from error
        for metric, value in scores.items():
            yield protocol.name, clip, metric, math.nan if has_nan else value


def summarise(rows: Iterable[Row], protocols: Iterable[Protocol]) -> list[dict]:
    """Averages the frame scores of a data set, with one entry per protocol that has any.

    Args:
        rows: The scores, with the frames of each clip in order.
        protocols: The protocols named in the rows.

    Returns:
        Entries with ``protocol``, its name; ``mean``, its scores of the data set, metric -> value; ``clip_mean``, the
        mean of clip means, and ``frame_mean``, the mean over all frames, one of which equals ``mean``; ``clips``, the
        means of each clip; ``frames``, the number of scored frames of each clip.
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
    """Formats an entry of :func:`summarise`, fresh or read from JSON, as a table.

    There is a row for each clip, each mean and, if it was scored, the blurry input. ``*`` marks the protocol's own
    mean.
    """
    metrics = list(entry['mean'])
    protocol = PROTOCOLS.get(entry['protocol'])  # None for unnamed settings of val.metrics
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
    cells = {metric: [_text(values.get(metric)) for *_, values in rows] for metric in metrics}
    columns = {metric: max(10, 2 + max(map(len, (metric, *texts)))) for metric, texts in cells.items()}
    lines = [
        f'protocol {entry["protocol"]}' + (f': {protocol.meaning}' if protocol else ''),
        f'{"clip":<{width}}{"frames":>7}' + ''.join(f'{m.upper():>{column}}' for m, column in columns.items()),
    ]
    lines += [
        f'{name:<{width}}{frames:>7}' + ''.join(f'{cells[m][row]:>{column}}' for m, column in columns.items())
        for row, (name, frames, _) in enumerate(rows)
    ]
    return '\n'.join(lines)


def _text(value: float | str | None) -> str:
    """Formats a score with four decimals, or small ones, such as warping errors, with four digits."""
    if value is None:
        return '-'
    value = float(value)  # JSON has infinity as a string
    return f'{value:.3e}' if 0 < abs(value) < 0.01 else f'{value:.4f}'


def write_json(path: Path, content: object) -> None:
    """Writes JSON to a temporary file and renames it, so that ``path`` is never half written.

    JSON has neither infinity (the PSNR of equal frames) nor NaN: they are written as the strings ``"inf"`` and
    ``"nan"``, which ``float()`` parses.
    """
    with atomic_write(path, sync=True) as partial:
        partial.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + '\n')


def _finite(content: object) -> object:
    """Returns the content with infinities and NaN as strings."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content


class ValidationRecord:
    """Records the scores of each validation.

    Args:
        path: The run's ``metrics.json``; an existing one is extended.
        metrics: ``val.metrics`` of the options; determines which scores of its metrics are better.
        lenient: Whether a failure to read or write the file is logged instead of raised.
    """

    def __init__(self, path: Path, metrics: dict[str, dict] | None, lenient: bool = False) -> None:
        self.path = path
        self.lenient = lenient
        self.metrics = metrics or {}
        #: data set -> metric -> better, val, iter: as BasicSR's ``best_metric_results``
        self.best: dict[str, dict[str, dict]] = {}

    def add(self, name: str, figures: list[dict], iteration: int | str, tb_logger: SummaryWriter | None) -> None:
        """Logs and stores the scores of one data set.

        Args:
            name: Name of the data set.
            figures: Entries of :func:`dblr_plugin.evaluation.scores.summarise`, one per protocol.
            iteration: The iteration or test they belong to.
            tb_logger: TensorBoard's writer; None without TensorBoard.

        Raises:
            DBLRError: ``metrics.json`` is damaged or cannot be written, unless lenient.
        """
        self._record_best(name, figures, iteration)
        for label, entry in _labelled(figures):
            self._log(name, label, entry, iteration, tb_logger)
        # a resumed run may repeat a validation
        self._replace({(name, iteration)}, [{'dataset': name, 'iter': iteration, **entry} for entry in figures])

    def resume(self, best: dict[str, dict[str, dict]], iteration: int) -> None:
        """Restores the best scores up to an iteration, and removes later ones, as their training is given up.

        Args:
            best: The best scores in that iteration's training state, which was saved before its validation.
            iteration: The iteration to resume from.
        """
        self.best = best
        outdated = set()
        for name, at, figures in self._earlier():
            if isinstance(at, int) and at > iteration:
                outdated.add((name, at))
            elif isinstance(at, int):
                self._record_best(name, figures, at)
        if outdated:
            self._replace(outdated, [])

    def has(self, name: str, iteration: int) -> bool:
        """Whether ``metrics.json`` has a data set's scores for an iteration."""
        return any((dataset, at) == (name, iteration) for dataset, at, _ in self._earlier())

    def _record_best(self, name: str, figures: list[dict], iteration: int | str) -> None:
        record = self.best.setdefault(name, {})
        for label, entry in _labelled(figures):
            for metric, value in entry['mean'].items():
                better = better_of(metric, self.metrics)
                value = float(value)  # metrics.json has infinity as a string
                best = record.get(label + metric, {'val': math.nan})['val']
                if math.isnan(best) or (value >= best if better == 'higher' else value <= best):
                    record[label + metric] = {'better': better, 'val': value, 'iter': iteration}

    def _earlier(self) -> list[tuple[str, int | str, list[dict]]]:
        """Returns the contents of ``metrics.json``: data set, iteration, figures."""
        validations: dict[tuple[str, int | str], list[dict]] = {}
        try:
            entries = self._entries()
        except DBLRError as error:
            if not self.lenient:
                raise
            get_root_logger().error(f'{error}. Training continues without its scores.')
            entries = []
        for entry in entries:
            validations.setdefault((entry['dataset'], entry['iter']), []).append(entry)
        return [(*key, figures) for key, figures in validations.items()]

    def _entries(self) -> list[dict]:
        try:
            entries = json.loads(self.path.read_text()) if self.path.exists() else []
        except (OSError, ValueError) as error:
            raise DBLRError(f'{self.path}: damaged ({error}); fix it, or move it away') from error
        if not (isinstance(entries, list) and all(map(_is_entry, entries))):
            raise DBLRError(f'{self.path}: damaged (no list of scores); fix it, or move it away')
        return entries

    @master_only
    def _log(self, name: str, label: str, entry: dict, iteration: int | str, tb_logger: SummaryWriter | None) -> None:
        lines = [f'Validation {name} (protocol {entry["protocol"]})']
        for metric, value in entry['mean'].items():
            blurry = entry.get('input') or {'mean': {}, 'clips': {}}
            line = f'\t # {metric}: {_text(value)}'
            if isinstance(iteration, int):  # a test has only one
                best = self.best[name][label + metric]
                line += f'\tBest: {_text(best["val"])} @ {best["iter"]} iter'
            if metric in blurry['mean']:
                line += f'\tBlurry input: {_text(blurry["mean"][metric])}'
            lines.append(line)
            clip_mean, frame_mean = entry['clip_mean'][metric], entry['frame_mean'][metric]
            lines.append(f'\t    clip mean {_text(clip_mean)}, frame mean {_text(frame_mean)}')
            clips = {clip: means[metric] for clip, means in entry['clips'].items() if metric in means}
            for clip, mean in clips.items():
                input_mean = blurry['clips'].get(clip, {}).get(metric)
                told = '' if input_mean is None else f' (blurry input {_text(input_mean)})'
                lines.append(f'\t    {clip}: {_text(mean)}{told}')
            if tb_logger:
                tag = f'metrics/{name}/{label}{metric}'
                tb_logger.add_scalar(tag, value, iteration)
                for clip, mean in clips.items():
                    tb_logger.add_scalar(f'{tag}/{clip}', mean, iteration)
        get_root_logger().info('\n'.join(lines))

    @master_only
    def _replace(self, outdated: set[tuple[str, int | str]], entries: list[dict]) -> None:
        """Removes the entries of these data sets and iterations from ``metrics.json``, and appends others."""
        try:
            earlier = [entry for entry in self._entries() if (entry['dataset'], entry['iter']) not in outdated]
            write_json(self.path, [*earlier, *entries])
        except DBLRError as error:
            if not self.lenient:
                raise
            get_root_logger().error(f'{error}. The scores are in this log; training continues.')


def _is_entry(entry: object) -> bool:
    """Whether this has what is read back from entries written by :meth:`ValidationRecord.add`."""
    if not isinstance(entry, dict) or not {'dataset', 'iter', 'protocol', 'mean'} <= entry.keys():
        return False
    return isinstance(entry['mean'], dict) and all(
        isinstance(value, int | float) or value in ('inf', '-inf', 'nan') for value in entry['mean'].values()
    )


def _labelled(figures: list[dict]) -> list[tuple[str, dict]]:
    """Pairs entries with metric prefixes: none for the first protocol, as in ``val.metrics``, so that runs compare."""
    return [(f'{entry["protocol"]}/' if number else '', entry) for number, entry in enumerate(figures)]
