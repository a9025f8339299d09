"""Validation and test samples: whole frames in order, each with its padded window."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from dblr_plugin.data.clips import ClipPair, index_pairs, label, required, window_of
from dblr_plugin.data.flow import align, too_small_for_flow
from dblr_plugin.data.frames import read_each, to_planes, unit_range
from dblr_plugin.data.store import FrameStore, open_store
from dblr_plugin.data.windows import reach_of, window_indices
from dblr_plugin.errors import DBLRError, nearest, raise_faults

__all__ = ['VideoDeblurTestDataset']

PADDINGS = ('replicate', 'reflection', 'reflection_circle', 'circle')


@DATASET_REGISTRY.register()
class VideoDeblurTestDataset(Dataset):
    """One sample for each whole frame of each clip, with or without ground truth.

    If samples are read in order, each frame is decoded once, and at most one window of frames is cached.

    Args:
        opt: BasicSR's dataset options, not modified:
            dataroot_lq (str): Folder of clips, or ``.lmdb`` database.
            dataroot_gt (str, optional): The same for the sharp frames, paired by name.
            meta_info_file (str, optional): List of the clips to use; all by default.
            io_backend (dict, optional): ``{type: disk | lmdb}``; inferred from the paths by default.
            num_frame (int): Frames in a window, odd. Default: 5.
            causal (bool): A window ends with the frame to restore instead of surrounding it. Default: False.
            flow (bool | str): Align the other frames of a window to the one to restore by optical flow;
                ``'consistent'`` also replaces their occluded pixels with that frame's. Default: False.
            padding (str): Padding beyond a clip's ends: replicate (the default), reflection, reflection_circle or
                circle.
            scale (int, optional): Must be 1.

    Attributes:
        clips (list[ClipPair]): Name, frames and size of each clip, in the order of the samples.
        data_info (dict[str, list]): folder, idx (``'i/n'``), border, lq_path and gt_path of each sample, as in
            BasicSR's VideoTestDataset; gt_path is empty without ground truth.

    Raises:
        DBLRError: The options or the data cannot be used.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        self.opt = dict(opt)
        if opt.get('y_only'):
            raise DBLRError(f'{label(opt)}: y_only is for training alone, as the Y of JPEG is not exact; remove it')
        self.num_frame, self.causal = window_of(opt)
        self.flow = opt.get('flow', False)
        self.padding = opt.get('padding', 'replicate')
        if self.padding not in PADDINGS:
            hint = nearest(self.padding, PADDINGS)
            raise DBLRError(f"{label(opt)}: padding '{self.padding}' is not one of {', '.join(PADDINGS)}{hint}")
        self.lq_store = open_store(required(opt, 'dataroot_lq'), opt.get('io_backend'))
        gt_root = opt.get('dataroot_gt')
        self.gt_store = None if gt_root is None else open_store(gt_root, opt.get('io_backend'))
        self.clips = index_pairs(self.lq_store, self.gt_store, opt.get('meta_info_file'))
        if self.flow:
            raise_faults(too_small_for_flow(self.clips), 'data')
        self.data_info: dict[str, list] = {'lq_path': [], 'gt_path': [], 'folder': [], 'idx': [], 'border': []}
        for clip in self.clips:
            self._add(clip)
        self._positions = [(clip, i) for clip in self.clips for i in range(len(clip.frames))]
        self._start_cache()

    def _start_cache(self) -> None:
        """Makes overlapping windows, read in order, decode each frame once."""
        # flow takes images, not planes; aligned frames differ from window to window, so unaligned ones are cached
        read = self.lq_store.read if self.flow else partial(_read_planes, self.lq_store)
        self._read_lq = lru_cache(self.num_frame)(read)

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without frames: decoding is cheaper than sending them to another process."""
        return {name: value for name, value in self.__dict__.items() if name != '_read_lq'}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_cache()

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns the frame at ``index`` with its window.

        Returns:
            lq: float32 RGB in [0, 1], (num_frame, 3, h, w).
            gt: The sharp version of the frame to restore, likewise, (3, h, w); absent without ground truth.
            folder, idx, border, lq_path: The sample's entries of ``data_info``.
        """
        clip, centre = self._positions[index]
        window = window_indices(centre, len(clip.frames), self.num_frame, self.padding, self.causal)
        reads = [partial(self._read_lq, clip.name, clip.frames[i]) for i in window]
        if self.gt_store is not None:
            reads.append(partial(_read_planes, self.gt_store, clip.name, clip.frames[centre]))
        frames = read_each(reads)
        sharp = None if self.gt_store is None else frames.pop()
        if self.flow:
            before, _ = reach_of(self.num_frame, self.causal)
            frames = [to_planes(frame) for frame in align(frames, before, self.flow == 'consistent')]
        sample = {'lq': unit_range(frames)}
        if sharp is not None:
            sample['gt'] = unit_range([sharp])[0]
        return sample | {key: self.data_info[key][index] for key in ('folder', 'idx', 'border', 'lq_path')}

    def read_blurry(self, clip: ClipPair, number: int) -> np.ndarray:
        """Returns a blurry frame, uint8 RGB (h, w, 3); raises DBLRError if it cannot be read."""
        return cv2.cvtColor(self.lq_store.read(clip.name, clip.frames[number]), cv2.COLOR_BGR2RGB)

    def read_truth(self, clip: ClipPair, number: int) -> np.ndarray | None:
        """Returns the sharp frame, uint8 BGR (h, w, 3); None for clips without ground truth."""
        return None if self.gt_store is None else self.gt_store.read(clip.name, clip.frames[number])

    def _add(self, clip: ClipPair) -> None:
        """Appends one clip's samples to ``data_info``."""
        count, (before, after) = len(clip.frames), reach_of(self.num_frame, self.causal)
        self.data_info['folder'] += [clip.name] * count
        self.data_info['idx'] += [f'{i}/{count}' for i in range(count)]
        self.data_info['border'] += [int(i < before or i >= count - after) for i in range(count)]
        self.data_info['lq_path'] += [self.lq_store.where(clip.name, frame) for frame in clip.frames]
        if self.gt_store is not None:
            self.data_info['gt_path'] += [self.gt_store.where(clip.name, frame) for frame in clip.frames]


def _read_planes(store: FrameStore, clip: str, frame: str) -> np.ndarray:
    """Returns one frame as uint8 RGB (3, h, w): a quarter of the size of floats, and ready for conversion."""
    return to_planes(store.read(clip, frame))
