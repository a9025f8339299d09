"""Training samples: random windows, crops and flips from clips of any length, in a folder or in LMDB."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from dblr_plugin.data.clips import (
    ClipPair,
    index_pairs,
    label,
    num_frame_of,
    positive_int,
    require_unit_scale,
    required,
)
from dblr_plugin.data.flow import align, too_small_for_flow
from dblr_plugin.data.frames import flip, read_each, to_tensor
from dblr_plugin.data.store import open_store
from dblr_plugin.data.train_sampler import SampleIndex
from dblr_plugin.data.windows import reach_of
from dblr_plugin.errors import DBLRError, raise_faults

__all__ = ['VideoDeblurDataset']

#: Pixels around a crop that optical flow sees too, as it sees whole frames in testing: motion crosses a crop's border.
FLOW_MARGIN = 32


@DATASET_REGISTRY.register()
class VideoDeblurDataset(Dataset):
    """One sample for each frame that has a whole window around it within its clip.

    Args:
        opt: BasicSR's dataset options, only read:
            dataroot_gt, dataroot_lq (str): Folders of clips, or ``.lmdb`` databases; paired by name.
            meta_info_file (str, optional): List of the clips to use; without it, all.
            io_backend (dict, optional): ``{type: disk | lmdb}``; without it, as the paths say.
            num_frame (int): Frames in a window, odd. Default: 5.
            causal (bool): A window ends with the frame to restore instead of surrounding it. Default: False.
            flow (bool | str): The other frames of a window are aligned to the one to restore, by optical flow, before
                they are flipped; ``'consistent'``: and their hidden pixels are that one's. Default: False.
            gt_size (int): Side of the square crop, in pixels.
            y_only (bool): Read brightness alone, for a network of one channel; faster with JPEG, whose own Y is read
                then, 60 dB and more from the Y of its RGB, and exact with all others. Default: False.
            interval_list (list[int]): Distances between a window's frames, drawn among those that fit the clip
                around its centre. Default: [1].
            random_reverse (bool): Turn half the windows backwards. Default: False.
            use_hflip (bool): Flip half the samples horizontally. Default: False.
            use_rot (bool): Flip half the samples vertically and transpose half of them. Default: False.
            scale (int, optional): Must be 1.
            batch_size_per_gpu, dataset_enlarge_ratio: The loader's, checked against the number of samples.

    Raises:
        DBLRError: The options or the data cannot be trained on; everything is checked here, before training.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        self.opt = dict(opt)
        require_unit_scale(opt)
        self.num_frame = num_frame_of(opt)
        self.gt_size = positive_int(opt, 'gt_size', required(opt, 'gt_size'))
        self.causal = bool(opt.get('causal', False))
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
        """Returns one sample: a new draw at each call with a plain index, always the same with a ``SampleIndex``.

        Returns:
            lq: float32 RGB in [0, 1], (num_frame, 3, gt_size, gt_size), or with ``y_only`` BasicSR's Y in
                [16/255, 235/255], (num_frame, 1, gt_size, gt_size).
            gt: The same for the frame to restore, without the first dimension.
            key: ``clip/frame`` of that frame.
        """
        clip, centre = self.centres[index]
        # without our sampler torch's seed serves: BasicSR's worker_init_fn seeds `random` alike in every epoch
        rng = random.Random(index.seed if isinstance(index, SampleIndex) else int(torch.randint(2**62, ())))
        window = self._window(rng, clip, centre)
        height, width = clip.size
        top, left = rng.randint(0, height - self.gt_size), rng.randint(0, width - self.gt_size)
        names = [clip.frames[i] for i in window]
        read_gt = partial(self.gt_store.read_crop, clip.name, clip.frames[centre], top, left, self.gt_size, self.y_only)
        stack = flip(
            np.stack(
                (self._aligned_crops if self.flow else self._crops)(clip, names, top, left, self.gt_size, read_gt)
            ),
            horizontal=self._coin(rng, 'use_hflip'),
            vertical=self._coin(rng, 'use_rot'),
            transpose=self._coin(rng, 'use_rot'),
        )
        sample = to_tensor(stack)
        return {'lq': sample[:-1], 'gt': sample[-1], 'key': f'{clip.name}/{clip.frames[centre]}'}

    def _window(self, rng: random.Random, clip: ClipPair, centre: int) -> list[int]:
        """Draws the indices of the window's frames, in order or reversed."""
        before, after = reach_of(self.num_frame, self.causal)
        behind = len(clip.frames) - 1 - centre
        fitting = [
            interval for interval in self.intervals if before * interval <= centre and after * interval <= behind
        ]
        interval = rng.choice(fitting)
        window = [centre + offset * interval for offset in range(-before, after + 1)]
        return window[::-1] if self._coin(rng, 'random_reverse') else window

    def _crops(
        self, clip: ClipPair, names: list[str], top: int, left: int, size: int, read_gt: Callable[[], np.ndarray]
    ) -> list[np.ndarray]:
        """The blurry crops and, last, the sharp one."""
        reads = [partial(self.lq_store.read_crop, clip.name, name, top, left, size, self.y_only) for name in names]
        return read_each([*reads, read_gt])

    def _aligned_crops(
        self, clip: ClipPair, names: list[str], top: int, left: int, size: int, read_gt: Callable[[], np.ndarray]
    ) -> list[np.ndarray]:
        seen = min(size + 2 * FLOW_MARGIN, *clip.size)
        y, x = (
            min(max(start - FLOW_MARGIN, 0), side - seen) for start, side in zip((top, left), clip.size, strict=True)
        )
        reference, _ = reach_of(self.num_frame, self.causal)
        *blurry, sharp = self._crops(clip, names, y, x, seen, read_gt)
        aligned = align(blurry, reference, self.flow == 'consistent')
        return [*(frame[top - y : top - y + size, left - x : left - x + size] for frame in aligned), sharp]

    def _coin(self, rng: random.Random, key: str) -> bool:
        """Tosses a coin for an augmentation; never true for one that is off."""
        return bool(self.opt.get(key, False)) and rng.random() < 0.5

    def _check_extent(self) -> None:
        """Refuses clips that are shorter than a window or smaller than a crop."""
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
    """Returns the distances between frames that may be drawn."""
    intervals = opt.get('interval_list', [1])
    if not isinstance(intervals, (list, tuple)) or not intervals:
        raise DBLRError(f'{label(opt)}: interval_list is {intervals!r}; it must be a list, such as [1, 2]')
    return [positive_int(opt, 'interval_list', interval) for interval in intervals]


def _check_batch(opt: Mapping[str, Any], samples: int) -> None:
    """Refuses an epoch without a single whole batch: BasicSR would train nothing and save that as a model."""
    batch, ratio = opt.get('batch_size_per_gpu', 1), opt.get('dataset_enlarge_ratio', 1)
    world_size = get_dist_info()[1]
    if math.ceil(samples * ratio / world_size) < batch:
        raise DBLRError(
            f'{label(opt)}: {samples} samples with dataset_enlarge_ratio {ratio} do not fill one batch of '
            f'{batch} on each of {world_size} processes; set dataset_enlarge_ratio to '
            f'{math.ceil(batch * world_size / samples)} or more'
        )
