"""Validation: every frame of every clip, restored once and scored, the work shared by all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor, nn
from tqdm import tqdm

from dblr_plugin.data.clips import ClipPair
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.data.windows import spread, window_indices
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation import Protocol, choose_protocols, summarise
from dblr_plugin.evaluation.psnr_ssim import SSIM_WINDOW, psnr, ssim
from dblr_plugin.evaluation.scores import Row
from dblr_plugin.restore.int8_forward import WINDOWS
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.threads import BackgroundWriter

__all__ = [
    'ConfiguredMetrics', 'Interrupted', 'RestoredFrame', 'frame_scores', 'protocols_of', 'score_dataset',
    'share_buffers', 'to_image',
]  # fmt: skip


# restored frames that wait to be scored
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


@dataclass(frozen=True)
class RestoredFrame:
    """A frame of a data set beside what was made of it.

    Attributes:
        clip: The name of its clip.
        name: Its own name, as its file has it.
        index: Its place in the clip, from 0.
        count: The clip's frames.
        blurry: As it was read, uint8 BGR ``(h, w, 3)``.
        restored: BGR ``(h, w, 3)`` in [0, 255], float32 and not rounded.
        truth: The sharp frame, uint8 BGR ``(h, w, 3)``; None where there is none.
    """

    clip: str
    name: str
    index: int
    count: int
    blurry: np.ndarray
    restored: np.ndarray
    truth: np.ndarray | None

    @property
    def picture(self) -> np.ndarray:
        """The restored frame as it is written, uint8 BGR ``(h, w, 3)``."""
        return self.restored.round().astype(np.uint8)


def score_dataset(
    dataset: VideoDeblurTestDataset,
    restorer: VideoRestorer,
    protocols: Sequence[Protocol],
    callbacks: Sequence[Callable[[RestoredFrame], None]] = (),
    progress: bool = True,
    interrupted: Callable[[], bool] = lambda: False,
    score_input: bool = False,
) -> list[dict]:
    """Restores this process's share of a data set's frames and scores them; all processes get all scores.

    Frames are read, restored and scored at the same time.

    Args:
        dataset: The clips.
        restorer: The network.
        protocols: What to score by.
        callbacks: Called with each restored frame, in a thread of their own.
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
    if restorer.needs_calibration:
        restorer.calibrate(_calibration_windows(dataset))
    input_rows: list[Row] = []

    def score(clip: ClipPair, number: int, restored: Tensor, blurry: np.ndarray) -> None:
        frame = _restored_frame(dataset, clip, number, restored, blurry)
        for callback in callbacks:
            callback(frame)
        rows.extend(frame_scores(frame, protocols))
        if score_input:
            input_rows.extend(frame_scores(replace(frame, restored=frame.blurry), protocols))

    bar = tqdm(total=last - first, desc=f'Test {dataset.opt["name"]}', unit='frame', disable=not progress or rank > 0)
    with bar, BackgroundWriter(score, WAITING) as score_behind:
        for restored in _restored(dataset, restorer, range(first, last)):
            if interrupted():
                break
            score_behind(*restored)
            bar.update()
    shares = _gathered((rows, input_rows, interrupted()), world_size)
    if any(stopped for *_, stopped in shares):
        raise Interrupted
    entries = summarise([row for share, _, _ in shares for row in share], protocols)
    inputs = summarise([row for _, share, _ in shares for row in share], protocols)
    for entry, blurry in zip(entries, inputs, strict=False):
        entry['input'] = {key: blurry[key] for key in ('mean', 'clips')}
    return entries


def _calibration_windows(dataset: VideoDeblurTestDataset) -> Iterator[list[np.ndarray]]:
    """The same windows from all over the data set on all processes."""
    frames = [(clip, number) for clip in dataset.clips for number in range(len(clip.frames))]
    for clip, centre in spread(frames, WINDOWS):
        window = window_indices(centre, len(clip.frames), dataset.num_frame, dataset.padding, dataset.causal)
        yield [dataset.read_blurry(clip, number) for number in window]


def _restored(
    dataset: VideoDeblurTestDataset, restorer: VideoRestorer, samples: range
) -> Iterator[tuple[ClipPair, int, Tensor, np.ndarray]]:
    """Clip, number, restored and blurry frame of each of some neighbouring samples."""
    start = 0
    for clip in dataset.clips:
        count = len(clip.frames)
        numbers = range(max(samples.start - start, 0), min(samples.stop - start, count))
        start += count
        if numbers:
            pairs = restorer.restore_clip(partial(dataset.read_blurry, clip), count, numbers, dataset.padding)
            for number, (restored, blurry) in zip(numbers, pairs, strict=True):
                yield clip, number, restored, blurry


def _restored_frame(
    dataset: VideoDeblurTestDataset, clip: ClipPair, number: int, restored: Tensor, blurry: np.ndarray
) -> RestoredFrame:
    return RestoredFrame(
        clip=clip.name,
        name=clip.frames[number],
        index=number,
        count=len(clip.frames),
        blurry=cv2.cvtColor(blurry, cv2.COLOR_RGB2BGR),
        restored=to_image(restored),
        truth=dataset.read_truth(clip, number),
    )


def to_image(restored: Tensor) -> np.ndarray:
    """A restored frame, RGB ``(3, h, w)`` in [0, 1], as protocols take it: BGR ``(h, w, 3)`` in [0, 255], float32."""
    return restored.float().clamp(0, 1).flip(0).permute(1, 2, 0).mul(255).contiguous().cpu().numpy()


def share_buffers(net: nn.Module) -> None:
    """Gives all processes the first one's BatchNorm statistics, so that scores do not depend on who measured."""
    if dist.is_initialized():
        for buffer in net.buffers():
            dist.broadcast(buffer, 0)


def frame_scores(frame: RestoredFrame, protocols: Sequence[Protocol]) -> Iterator[Row]:
    """Protocol, clip, metric and value of a frame that has ground truth."""
    if frame.truth is None:
        return
    for protocol in protocols:
        if frame.index in protocol.frames(frame.count):
            for metric, value in protocol.score(frame.restored, frame.truth).items():
                yield protocol.name, frame.clip, metric, value


def _gathered(share: tuple[list, list, bool], world_size: int) -> list[tuple[list, list, bool]]:
    """The rows of all processes, in the order of the frames, and whether each was told to stop."""
    shares: list[Any] = [share]
    if world_size > 1:
        shares = [None] * world_size
        dist.all_gather_object(shares, share)
    return shares
