"""Validation: every frame of every clip, restored and scored, the work shared by all processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

__all__ = ['Scores', 'protocol_name', 'score_dataset', 'summarise']

#: clip -> metric -> value of each frame, in order
Scores = dict[str, dict[str, list[float]]]


def protocol_name(metrics: dict[str, dict]) -> str:
    """Names how figures are made: all frames, uint8, no alignment, mean of clip means; and

    ``basicsr``: RGB without crop; ``luma``: Y (BT.601) without crop; otherwise colour and crop are spelled out.
    """
    settings = {(bool(m.get('test_y_channel')), m.get('crop_border', 0)) for m in metrics.values()}
    if settings == {(False, 0)}:
        return 'basicsr'
    if settings == {(True, 0)}:
        return 'luma'
    return 'custom: ' + ', '.join(f'{"Y" if y else "RGB"} crop {crop}' for y, crop in sorted(settings))


def score_dataset(
    dataset: Dataset,
    restore: Callable[[Tensor], Tensor],
    metrics: dict[str, dict],
    keep_image: Callable[[dict, np.ndarray], None] | None = None,
    progress: bool = True,
) -> Scores:
    """Restores this process's share of a data set's frames and scores them; all processes get all scores.

    Args:
        dataset: A ``VideoDeblurTestDataset``, or any with its sample keys.
        restore: ``(1, t, 3, h, w)`` RGB in [0, 1] to ``(1, 3, h, w)``.
        metrics: BasicSR's ``val.metrics``: name -> type and arguments.
        keep_image: Called with each sample and its restored frame, uint8 BGR ``(h, w, 3)``.
        progress: Whether to show a progress bar on the first process.

    Returns:
        The scores; empty without ground truth or metrics.
    """
    rank, world_size = get_dist_info()
    # neighbouring frames share a window, so each process takes one run of frames
    first, last = (len(dataset) * r // world_size for r in (rank, rank + 1))
    rows = []
    for index in tqdm(range(first, last), unit='frame', desc=_title(dataset), disable=not progress or rank > 0):
        sample = dataset[index]
        restored = tensor2img(restore(sample['lq'].unsqueeze(0)))
        if keep_image is not None:
            keep_image(sample, restored)
        if 'gt' in sample:
            truth = tensor2img(sample['gt'])
            for name, metric in metrics.items():
                # BasicSR's functions return NumPy scalars, which checkpoints cannot hold
                rows.append((sample['folder'], name, float(calculate_metric({'img': restored, 'img2': truth}, metric))))
    return _collect(rows, world_size)


def _title(dataset: Dataset) -> str:
    return f'Test {dataset.opt["name"]}'


def _collect(rows: list[tuple[str, str, float]], world_size: int) -> Scores:
    shares = [rows]
    if world_size > 1:
        shares = [None] * world_size
        dist.all_gather_object(shares, rows)
    scores: Scores = {}
    for clip, metric, value in (row for share in shares for row in share):
        scores.setdefault(clip, {}).setdefault(metric, []).append(value)
    return scores


def summarise(scores: Scores) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The mean of clip means of each metric, and the clip means."""
    clips = {clip: {m: float(np.mean(v)) for m, v in by_metric.items()} for clip, by_metric in scores.items()}
    names = next(iter(clips.values()), {})
    return {m: float(np.mean([clip[m] for clip in clips.values()])) for m in names}, clips
