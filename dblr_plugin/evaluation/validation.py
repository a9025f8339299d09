"""Validation: restores every frame of every clip once, scores it on all processes, and writes comparison images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import torch.distributed as dist
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor, nn
from tqdm import tqdm

from dblr_plugin.data.clips import ClipPair
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.data.windows import spread, window_indices
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.metrics import find_metric
from dblr_plugin.evaluation.protocols import PROTOCOLS, Protocol, choose_protocols, with_metrics
from dblr_plugin.evaluation.scores import FramePair, Row, score_frame, summarise
from dblr_plugin.files import atomic_write, make_folder
from dblr_plugin.restore.openvino_forward import WINDOWS
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.threads import BackgroundWriter

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    'ComparisonImages', 'Interrupted', 'RestoredFrame', 'check_sizes', 'frame_scores', 'protocols_of', 'score_dataset',
    'share_buffers', 'to_image', 'write_picture',
]  # fmt: skip


T = TypeVar('T')

# maximum number of restored frames waiting to be scored
WAITING = 2
# scores of restored frames, scores of blurry frames, whether the process was asked to stop
_Share = tuple[list[Row], list[Row], bool]


class Interrupted(Exception):
    """Validation was aborted on all processes because one of them was asked to stop."""


def protocols_of(val: dict) -> list[Protocol]:
    """Returns the protocols of the ``val`` section.

    With ``val.protocol``, it is used together with any further ``val.metrics``. Otherwise ``val.metrics`` are scored on
    all frames, uint8, without alignment, as the mean of clip means; without either there is no protocol.

    Raises:
        DBLRError: There is no protocol of that name.
    """
    metrics = val.get('metrics') or {}
    if val.get('protocol'):
        return with_metrics(choose_protocols(val['protocol']), metrics)
    return [Protocol(_name_of(metrics), 'val.metrics', metrics=metrics)] if metrics else []


def _name_of(metrics: dict[str, dict]) -> str:
    """``basicsr`` for RGB without crop, ``luma`` for Y (BT.601) without crop, otherwise colour and crop spelled out.

    Metrics with the name of another are spelled out too, such as ``ssim: {type: ssim_3d}``.
    """
    settings = {(bool(m.get('test_y_channel')), m.get('crop_border', 0)) for m in metrics.values()}
    types = {name: find_metric(metric['type']).name for name, metric in metrics.items()}
    other = [f'{name} is {kind}' for name, kind in types.items() if kind != name in PROTOCOLS['basicsr'].metrics]
    if settings == {(False, 0)} and not other:
        return 'basicsr'
    if settings == {(True, 0)} and not other:
        return 'luma'
    return 'custom: ' + ', '.join([f'{"Y" if y else "RGB"} crop {crop}' for y, crop in sorted(settings)] + other)


@dataclass(frozen=True)
class RestoredFrame:
    """A blurry frame of a data set with its restoration.

    Attributes:
        clip: Name of its clip.
        name: Name of the frame, as in its file name.
        index: Index in the clip, from 0.
        count: Number of frames in the clip.
        blurry: The frame as read, uint8 BGR ``(h, w, 3)``.
        restored: BGR ``(h, w, 3)`` in [0, 255], unrounded float32.
        truth: The sharp frame, uint8 BGR ``(h, w, 3)``; None if there is none.
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
        """The restored frame as written to disk, uint8 BGR ``(h, w, 3)``; NaN becomes black."""
        with np.errstate(invalid='ignore'):
            return self.restored.round().astype(np.uint8)

    def images(self, of_input: bool = False) -> FramePair:
        """The images to score: the restored or the blurry frame, and the ground truth."""
        return self.blurry if of_input else self.restored, self.truth


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

    Reading, restoring and scoring run concurrently.

    Args:
        dataset: The clips.
        restorer: The network.
        protocols: The protocols to score by.
        callbacks: Called with each restored frame, in a separate thread.
        progress: Whether to show a progress bar on the first process.
        interrupted: Called before each frame; returns whether to stop.
        score_input: Whether to score the blurry frames too.

    Returns:
        The entries of :func:`~dblr_plugin.evaluation.scores.summarise`; without ground truth, only for metrics that
        need none. With ``score_input``, each also has ``input``: the ``mean`` and ``clips`` of the blurry frames, if
        these have scores too.

    Raises:
        Interrupted: On all processes, if ``interrupted`` returned true on one.
    """
    check_sizes(dataset, protocols)
    rank, world_size = get_dist_info()
    # adjacent frames share windows, so each process takes a contiguous range
    first, last = (len(dataset) * r // world_size for r in (rank, rank + 1))
    # metrics that use the previous frame need one more, unscored, at the start of the range
    begin = max(first - any(protocol.needs_before for protocol in protocols), 0)
    if restorer.needs_calibration:
        restorer.calibrate(_calibration_windows(dataset))
    scores = _Scores(dataset, protocols, callbacks, score_input)
    bar = tqdm(total=last - first, desc=f'Test {dataset.opt["name"]}', unit='frame', disable=not progress or rank > 0)
    with bar, BackgroundWriter(scores.add, WAITING) as score_behind:
        for sample, restored in enumerate(_restored(dataset, restorer, range(begin, last)), begin):
            if interrupted():
                break
            score_behind(sample >= first, *restored)
            bar.update(sample >= first)
    shares = _gathered((scores.rows, scores.input_rows, interrupted()))
    if any(stopped for *_, stopped in shares):
        raise Interrupted
    return _entries(shares, protocols)


@dataclass
class _Scores:
    """Collects the scores of this process's frames; arguments as for :func:`score_dataset`."""

    dataset: VideoDeblurTestDataset
    protocols: Sequence[Protocol]
    callbacks: Sequence[Callable[[RestoredFrame], None]]
    score_input: bool
    rows: list[Row] = field(default_factory=list)
    input_rows: list[Row] = field(default_factory=list)
    before: RestoredFrame | None = None

    def add(self, is_scored: bool, clip: ClipPair, number: int, restored: Tensor, blurry: np.ndarray) -> None:
        """Scores the next frame, unless it only precedes this process's share."""
        frame = RestoredFrame(
            clip=clip.name,
            name=clip.frames[number],
            index=number,
            count=len(clip.frames),
            blurry=cv2.cvtColor(blurry, cv2.COLOR_RGB2BGR),
            restored=to_image(restored),
            truth=_read_truth(self.dataset, clip, number),
        )
        if is_scored:
            for callback in self.callbacks:
                callback(frame)
            self.rows.extend(frame_scores(frame, self.protocols, self.before))
            if self.score_input:
                self.input_rows.extend(frame_scores(frame, self.protocols, self.before, of_input=True))
        self.before = frame


def _entries(shares: list[_Share], protocols: Sequence[Protocol]) -> list[dict]:
    """Summarises the scores of all processes, including those of the blurry frames if there are any."""
    entries = summarise([row for rows, _, _ in shares for row in rows], protocols)
    inputs = summarise([row for _, rows, _ in shares for row in rows], protocols)
    by_protocol = {blurry['protocol']: {key: blurry[key] for key in ('mean', 'clips')} for blurry in inputs}
    for entry in entries:  # a metric may score only one of the two
        if entry['protocol'] in by_protocol:
            entry['input'] = by_protocol[entry['protocol']]
    return entries


def check_sizes(dataset: VideoDeblurTestDataset, protocols: Sequence[Protocol]) -> None:
    """Raises DBLRError for clips with frames too small for these protocols."""
    for protocol in protocols:
        protocol.check_sizes({clip.name: clip.size for clip in dataset.clips}, dataset.gt_store is not None)


def _calibration_windows(dataset: VideoDeblurTestDataset) -> Iterator[list[np.ndarray]]:
    """Yields windows spread over the data set, the same on all processes."""
    frames = [(clip, number) for clip in dataset.clips for number in range(len(clip.frames))]
    for clip, centre in spread(frames, WINDOWS):
        window = window_indices(centre, len(clip.frames), dataset.num_frame, dataset.padding, dataset.causal)
        yield [_read_blurry(dataset, clip, number) for number in window]


def _read_blurry(dataset: VideoDeblurTestDataset, clip: ClipPair, number: int) -> np.ndarray:
    """Returns a blurry frame; raises DBLRError if a derived data set returns something else."""
    return _frame(dataset.read_blurry(clip, number), f'{type(dataset).__name__}.read_blurry', clip, number)


def _read_truth(dataset: VideoDeblurTestDataset, clip: ClipPair, number: int) -> np.ndarray | None:
    """Returns a sharp frame, if there is one; raises DBLRError if a derived data set returns something else."""
    frame = dataset.read_truth(clip, number)
    return None if frame is None else _frame(frame, f'{type(dataset).__name__}.read_truth', clip, number)


def _frame(frame: object, reader: str, clip: ClipPair, number: int) -> np.ndarray:
    what = f'a {type(frame).__name__}'
    if isinstance(frame, np.ndarray):
        if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3:
            return frame
        what = f'an array {frame.shape} of {frame.dtype}'
    raise DBLRError(f'{clip.name}/{clip.frames[number]}: {reader} returns {what}; it must be uint8 (h, w, 3)')


def _restored(
    dataset: VideoDeblurTestDataset, restorer: VideoRestorer, samples: range
) -> Iterator[tuple[ClipPair, int, Tensor, np.ndarray]]:
    """Yields clip, frame number, restored and blurry frame for each sample of a range."""
    start = 0
    for clip in dataset.clips:
        count = len(clip.frames)
        numbers = range(max(samples.start - start, 0), min(samples.stop - start, count))
        start += count
        if numbers:
            pairs = restorer.restore_clip(partial(_read_blurry, dataset, clip), count, numbers, dataset.padding)
            for number, (restored, blurry) in zip(numbers, pairs, strict=True):
                yield clip, number, restored, blurry


def to_image(restored: Tensor) -> np.ndarray:
    """Converts a restored frame, RGB ``(3, h, w)`` in [0, 1], for protocols: float32 BGR ``(h, w, 3)`` in [0, 255]."""
    return restored.float().clamp(0, 1).flip(0).permute(1, 2, 0).mul(255).contiguous().cpu().numpy()


def share_buffers(net: nn.Module) -> None:
    """Broadcasts the first process's BatchNorm statistics, so that scores do not depend on which process measured."""
    if dist.is_initialized():
        for buffer in net.buffers():
            dist.broadcast(buffer, 0)


def frame_scores(
    frame: RestoredFrame, protocols: Sequence[Protocol], before: RestoredFrame | None = None, of_input: bool = False
) -> Iterator[Row]:
    """Scores a frame by the protocols that include it.

    Args:
        frame: The frame.
        protocols: The protocols to score by.
        before: The frame restored before it, from this clip or another.
        of_input: Whether to score the blurry frame instead.
    """
    by = [protocol for protocol in protocols if frame.index in protocol.frames(frame.count)]
    if before is not None and (before.clip, before.index) != (frame.clip, frame.index - 1):
        before = None
    images_before = None if before is None else before.images(of_input)
    return score_frame(by, frame.clip, frame.name, frame.images(of_input), images_before)


def _gathered(share: T) -> list[T]:
    """Gathers the shares of all processes, in the order of their ranks, which is that of the frames."""
    shares: list[Any] = [share]
    world_size = get_dist_info()[1]
    if world_size > 1:
        shares = [None] * world_size
        dist.all_gather_object(shares, share)
    return shares


# ---------------------------------------------------------------------- pictures


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes uint8 BGR ``(h, w, 3)`` atomically as the PNG file ``path``; creates its folder.

    Raises:
        DBLRError: The file cannot be written.
    """
    make_folder(path.parent)
    with atomic_write(path) as partial:
        partial.write_bytes(cv2.imencode('.png', image)[1].tobytes())


class ComparisonImages:
    """Comparison strips of the middle frames of a data set's first clips, as files and in TensorBoard.

    Args:
        folder: The run's ``visualization`` folder; strips are ``strips/<data set>/<clip>_<frame>_<iter>.png``.
        clips: Number of clips to show.
        side: Maximum side of the square centre crop, in pixels.
    """

    def __init__(self, folder: Path, clips: int = 4, side: int = 256) -> None:
        self.folder = folder
        self.clips = clips
        self.side = side

    def begin(self, dataset: VideoDeblurTestDataset) -> Callable[[RestoredFrame], None]:
        """Starts a validation; returns the callback for restored frames."""
        self.name = dataset.opt['name']
        self.strips: dict[str, np.ndarray] = {}
        return self._take

    def _take(self, frame: RestoredFrame) -> None:
        if frame.index == frame.count // 2:
            pictures = [frame.blurry, frame.picture, *([] if frame.truth is None else [frame.truth])]
            self.strips[f'{frame.clip}_{frame.name}'] = np.hstack([self._cut(picture) for picture in pictures])

    def _cut(self, frame: np.ndarray) -> np.ndarray:
        top, left = (max(0, (length - self.side) // 2) for length in frame.shape[:2])
        return frame[top : top + self.side, left : left + self.side]

    def finish(self, iteration: int, tb_logger: SummaryWriter | None) -> None:
        """Writes the strips collected on all processes; must be called on all."""
        strips = {name: strip for share in _gathered(self.strips) for name, strip in share.items()}
        if get_dist_info()[0] > 0:
            return
        shown = dict(list(strips.items())[: self.clips])
        try:
            for name, strip in shown.items():
                write_picture(self.folder / 'strips' / self.name / f'{name}_{iteration}.png', strip)
        except DBLRError as error:
            get_root_logger().error(f"{error}. Training continues without this validation's strips.")
        for name, strip in shown.items():
            if tb_logger:
                rgb = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
                tb_logger.add_image(f'samples/{self.name}/{name}', rgb, iteration, dataformats='HWC')
