"""Validation: every frame of every clip, restored once and scored, the work shared by all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation import Protocol, choose_protocols, summarise
from dblr_plugin.evaluation.psnr_ssim import SSIM_WINDOW, psnr, ssim
from dblr_plugin.evaluation.scores import Row
from dblr_plugin.threads import BackgroundWriter, prefetch

__all__ = ['ConfiguredMetrics', 'Interrupted', 'blurry_frame', 'protocols_of', 'score_dataset']


# samples that are read ahead, and restored frames that wait to be scored: a 720p window takes 55 MB
WAITING = 2


class Interrupted(Exception):
    """A validation was given up on all processes because one of them was told to stop."""


@dataclass(frozen=True)
class ConfiguredMetrics(Protocol):
    """``val.metrics`` as a protocol: all frames, uint8, no alignment, mean of clip means.

    Attributes:
        metrics: Name -> type and arguments of any BasicSR metric.
    """

    metrics: dict[str, dict] = field(default_factory=dict)

    def score(self, restored: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        """Scores one frame; restored and truth as for :meth:`Protocol.score`."""
        border = max((metric.get('crop_border', 0) for metric in self.metrics.values()), default=0)
        if min(truth.shape[:2]) - 2 * border < SSIM_WINDOW:
            raise DBLRError(
                f'val.metrics: crop_border {border} leaves too little of frames of {truth.shape[1]}x{truth.shape[0]} '
                f'(w x h): {SSIM_WINDOW} pixels are needed; lower it'
            )
        images = {'img': restored.round().astype(np.uint8), 'img2': truth}
        return {name: _measured(images, metric) for name, metric in self.metrics.items()}


# what gives the figures of BasicSR's metrics in less time
_QUICKER = {'calculate_psnr': psnr, 'calculate_ssim': ssim}


def _measured(images: dict[str, np.ndarray], metric: dict) -> float:
    """One of BasicSR's metrics, as its ``calculate_metric`` takes them."""
    quicker = _QUICKER.get(metric['type'])
    if quicker is None:
        # BasicSR's functions return NumPy scalars, which checkpoints cannot hold
        return float(calculate_metric(images, metric))
    return quicker(**images, crop_border=metric['crop_border'], test_y_channel=metric.get('test_y_channel', False))


def protocols_of(val: dict) -> list[Protocol]:
    """What the ``val`` section scores by: ``val.protocol`` if there is one, else ``val.metrics``, else nothing.

    Raises:
        DBLRError: There is no protocol of that name.
    """
    if val.get('protocol'):
        return choose_protocols(val['protocol'])
    metrics = val.get('metrics')
    return [ConfiguredMetrics(_name_of(metrics), 'val.metrics', metrics=metrics)] if metrics else []


def _name_of(metrics: dict[str, dict]) -> str:
    """``basicsr``: RGB without crop; ``luma``: Y (BT.601) without crop; otherwise colour and crop are spelled out."""
    settings = {(bool(m.get('test_y_channel')), m.get('crop_border', 0)) for m in metrics.values()}
    if settings == {(False, 0)}:
        return 'basicsr'
    if settings == {(True, 0)}:
        return 'luma'
    return 'custom: ' + ', '.join(f'{"Y" if y else "RGB"} crop {crop}' for y, crop in sorted(settings))


def score_dataset(
    dataset: Dataset,
    restore: Callable[[Tensor], Tensor],
    protocols: Sequence[Protocol],
    callbacks: Sequence[Callable[[dict, np.ndarray], None]] = (),
    progress: bool = True,
    interrupted: Callable[[], bool] = lambda: False,
    score_input: bool = False,
) -> list[dict]:
    """Restores this process's share of a data set's frames and scores them; all processes get all figures.

    Frames are read, restored and scored at the same time.

    Args:
        dataset: A ``VideoDeblurTestDataset``, or any with its sample keys.
        restore: ``(1, t, 3, h, w)`` RGB in [0, 1] to ``(1, 3, h, w)``.
        protocols: What to score by.
        keepers: Called, in a thread of their own, with each sample and its restored frame, uint8 BGR ``(h, w, 3)``.
        progress: Whether to show a progress bar on the first process.
        interrupted: Asked before each frame whether to give up.
        score_input: Whether the blurry frames are scored as well.

    Returns:
        The entries of :func:`dblr_plugin.evaluation.summarise`; none without ground truth or protocols. With
        ``score_input`` each has ``input``, the ``mean`` and the ``clips`` of the blurry frames.

    Raises:
        Interrupted: On all processes, if ``interrupted`` said so on one.
    """
    rank, world_size = get_dist_info()
    # neighbouring frames share a window, so each process takes one run of frames
    first, last = (len(dataset) * r // world_size for r in (rank, rank + 1))
    rows: list[Row] = []
    input_rows: list[Row] = []

    def score(sample: dict, restored: Tensor) -> None:
        picture = _picture(restored)
        for keep in callbacks:
            keep(sample, picture.round().astype(np.uint8))
        rows.extend(_figures(sample, picture, protocols))
        if score_input and 'gt' in sample:
            input_rows.extend(_figures(sample, _picture(blurry_frame(dataset, sample)), protocols))

    samples = prefetch((dataset[index] for index in range(first, last)), WAITING)
    bar = tqdm(samples, _title(dataset), last - first, unit='frame', disable=not progress or rank > 0)
    with BackgroundWriter(score, WAITING) as score_behind:
        for sample in bar:
            if interrupted():
                break
            score_behind(sample, restore(sample['lq'].unsqueeze(0)))
    shares = _gathered((rows, input_rows, interrupted()), world_size)
    if any(stopped for *_, stopped in shares):
        raise Interrupted
    entries, inputs = (
        summarise([row for share in shares for row in share[part]], protocols) for part in (0, 1)
    )  # fmt: skip
    for entry, blurry in zip(entries, inputs, strict=False):
        entry['input'] = {key: blurry[key] for key in ('mean', 'clips')}
    return entries


def blurry_frame(dataset: Dataset, sample: dict) -> Tensor:
    """The frame of a sample's window that is restored: RGB (3, h, w) in [0, 1]."""
    return sample['lq'][-1 if getattr(dataset, 'causal', False) else sample['lq'].shape[0] // 2]


def _picture(frame: Tensor) -> np.ndarray:
    """BasicSR's ``tensor2img`` up to its rounding, which is for the protocol to do: float32 BGR in [0, 255]."""
    return tensor2img(frame, out_type=np.float32) * 255


def _figures(sample: dict, restored: np.ndarray, protocols: Sequence[Protocol]) -> Iterator[Row]:
    """Protocol, clip, metric and value of a frame that has ground truth."""
    if 'gt' not in sample:
        return
    truth = tensor2img(sample['gt'])
    for protocol in _scoring(sample, protocols):
        for metric, value in protocol.score(restored, truth).items():
            yield protocol.name, sample['folder'], metric, value


def _title(dataset: Dataset) -> str:
    return f'Test {dataset.opt["name"]}'


def _scoring(sample: dict, protocols: Sequence[Protocol]) -> list[Protocol]:
    """The protocols that score this frame of its clip."""
    index, count = (int(number) for number in sample['idx'].split('/'))
    return [protocol for protocol in protocols if index in protocol.frames(count)]


def _gathered(share: tuple[list, list, bool], world_size: int) -> list[tuple[list, list, bool]]:
    """The rows of all processes, in the order of the frames, and whether each was told to stop."""
    shares = [share]
    if world_size > 1:
        shares = [None] * world_size
        dist.all_gather_object(shares, share)
    return shares
