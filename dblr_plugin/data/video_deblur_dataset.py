"""Training samples: random windows, crops and flips from clips of any length, in a folder or in LMDB."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from dblr_plugin.data.clips import ClipPair, index_pairs, label, positive_int, required, window_of
from dblr_plugin.data.flow import align, too_small_for_flow
from dblr_plugin.data.frames import coin, flip_randomly, read_each, to_tensor
from dblr_plugin.data.store import open_store
from dblr_plugin.data.train_sampler import rng_of
from dblr_plugin.data.windows import reach_of
from dblr_plugin.errors import DBLRError, counted, raise_faults

__all__ = ['VideoDeblurDataset']

#: Margin around a crop, in pixels, for optical flow: motion crosses a crop's border, and in testing flow sees whole
#: frames.
FLOW_MARGIN = 32


@DATASET_REGISTRY.register()
class VideoDeblurDataset(Dataset):
    """One sample for each frame whose whole window lies within its clip.

    Args:
        opt: BasicSR's dataset options, not modified:
            dataroot_gt, dataroot_lq (str): Folders of clips, or ``.lmdb`` databases; paired by name.
            meta_info_file (str, optional): List of the clips to use; all by default.
            io_backend (dict, optional): ``{type: disk | lmdb}``; inferred from the paths by default.
            num_frame (int): Frames in a window, odd. Default: 5.
            causal (bool): A window ends with the frame to restore instead of surrounding it. Default: False.
            flow (bool | str): Align the other frames of a window to the one to restore by optical flow, before
                flipping; ``'consistent'`` also replaces their occluded pixels with that frame's. Default: False.
            gt_size (int): Side of the square crop, in pixels.
            y_only (bool): Read luma only, for single-channel networks. With JPEG this is faster and reads the file's
                own Y, at 60 dB or more from the Y of its RGB; with other formats it is exact. Default: False.
            interval_list (list[int]): Distances between a window's frames; drawn from those that fit the clip around
                the window's centre. Default: [1].
            random_reverse (bool): Reverse half the windows in time. Default: False.
            use_hflip (bool): Flip half the samples horizontally. Default: False.
            use_rot (bool): Flip half the samples vertically and transpose half of them. Default: False.
            scale (int, optional): Must be 1.
            batch_size_per_gpu, dataset_enlarge_ratio: Loader options, checked against the number of samples.

    Raises:
        DBLRError: The options or data cannot be used for training; everything is checked here, before training.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        self.opt = dict(opt)
        self.num_frame, self.causal = window_of(opt)
        self.gt_size = positive_int(opt, 'gt_size', required(opt, 'gt_size'))
        self.flow = opt.get('flow', False)
        self.y_only = bool(opt.get('y_only', False))
        self.intervals = _intervals(opt)
        self.lq_store = open_store(required(opt, 'dataroot_lq'), opt.get('io_backend'))
        self.gt_store = open_store(required(opt, 'dataroot_gt'), opt.get('io_backend'))
        self.clips = index_pairs(self.lq_store, self.gt_store, opt.get('meta_info_file'))
        self._check_extent()
        before, after = (reach * min(self.intervals) for reach in reach_of(self.num_frame, self.causal))
        self.centres = [(clip, i) for clip in self.clips for i in range(before, len(clip.frames) - after)]
        _check_batch(opt, len(self.centres))

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one sample: with a plain index a new random draw each time, with a ``SampleIndex`` always the same.

        Returns:
            lq: float32 RGB in [0, 1], (num_frame, 3, gt_size, gt_size), or with ``y_only`` BasicSR's Y in
                [16/255, 235/255], (num_frame, 1, gt_size, gt_size).
            gt: The sharp version of the frame to restore, likewise, without the first dimension.
            key: ``clip/frame`` of that frame.
        """
        clip, centre = self.centres[index]
        rng = rng_of(index)
        window = self._window(rng, clip, centre)
        height, width = clip.size
        top, left = rng.randint(0, height - self.gt_size), rng.randint(0, width - self.gt_size)
        names = [clip.frames[i] for i in window]
        read_gt = partial(self.gt_store.read_crop, clip.name, clip.frames[centre], top, left, self.gt_size, self.y_only)
        read = self._aligned_crops if self.flow else self._crops
        stack = np.stack(read(clip, names, top, left, self.gt_size, read_gt))
        sample = to_tensor(flip_randomly(stack, self.opt, rng))
        return {'lq': sample[:-1], 'gt': sample[-1], 'key': f'{clip.name}/{clip.frames[centre]}'}

    def _window(self, rng: random.Random, clip: ClipPair, centre: int) -> list[int]:
        """Draws the indices of the window's frames, in order or reversed."""
        before, after = reach_of(self.num_frame, self.causal)
        behind = len(clip.frames) - 1 - centre
        interval = rng.choice([n for n in self.intervals if before * n <= centre and after * n <= behind])
        window = [centre + offset * interval for offset in range(-before, after + 1)]
        return window[::-1] if coin(self.opt, 'random_reverse', rng) else window

    def _crops(
        self, clip: ClipPair, names: list[str], top: int, left: int, size: int, read_gt: Callable[[], np.ndarray]
    ) -> list[np.ndarray]:
        """Returns the blurry crops, followed by the sharp one."""
        reads = [partial(self.lq_store.read_crop, clip.name, name, top, left, size, self.y_only) for name in names]
        return read_each([*reads, read_gt])

    def _aligned_crops(
        self, clip: ClipPair, names: list[str], top: int, left: int, size: int, read_gt: Callable[[], np.ndarray]
    ) -> list[np.ndarray]:
        seen = min(size + 2 * FLOW_MARGIN, *clip.size)
        margin = (seen - size) // 2  # less than FLOW_MARGIN in small frames
        y, x = (min(max(start - margin, 0), side - seen) for start, side in zip((top, left), clip.size, strict=True))
        reference, _ = reach_of(self.num_frame, self.causal)
        *blurry, sharp = self._crops(clip, names, y, x, seen, read_gt)
        aligned = align(blurry, reference, self.flow == 'consistent')
        return [*(frame[top - y : top - y + size, left - x : left - x + size] for frame in aligned), sharp]

    def _check_extent(self) -> None:
        """Rejects clips that are shorter than a window or smaller than a crop."""
        needed = (self.num_frame - 1) * min(self.intervals) + 1
        faults = []
        for clip in self.clips:
            if len(clip.frames) < needed:
                faults.append(
                    f"clip '{clip.name}' has too few frames: {len(clip.frames)}, and a window of num_frame "
                    f'{self.num_frame} needs {needed}; remove the clip or lower num_frame'
                )
            if min(clip.size) < self.gt_size:
                faults.append(
                    f"clip '{clip.name}' is {clip.size[1]}x{clip.size[0]} (w x h), smaller than gt_size "
                    f'{self.gt_size}; remove the clip or lower gt_size'
                )
        raise_faults(faults + (too_small_for_flow(self.clips) if self.flow else []), 'data')


def _intervals(opt: Mapping[str, Any]) -> list[int]:
    """Returns the frame distances to draw from."""
    intervals = opt.get('interval_list', [1])
    if not isinstance(intervals, (list, tuple)) or not intervals:
        raise DBLRError(f'{label(opt)}: interval_list is {intervals!r}; it must be a list, such as [1, 2]')
    return [positive_int(opt, 'interval_list', interval) for interval in intervals]


def _check_batch(opt: Mapping[str, Any], samples: int) -> None:
    """Rejects an epoch without a single full batch: BasicSR would train nothing and still save a model."""
    batch, ratio = opt.get('batch_size_per_gpu', 1), opt.get('dataset_enlarge_ratio', 1)
    world_size = get_dist_info()[1]
    if math.ceil(samples * ratio / world_size) < batch:
        places = f' on each of {world_size} processes' if world_size > 1 else ''
        raise DBLRError(
            f'{label(opt)}: {counted(samples, "sample")} with dataset_enlarge_ratio {ratio} cannot fill one batch of '
            f'{batch}{places}; set dataset_enlarge_ratio to {math.ceil(batch * world_size / samples)} or more'
        )
