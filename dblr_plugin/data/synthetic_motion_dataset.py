"""Training samples synthesised from sharp images: no blurry videos are needed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from dblr_plugin.colour import luma_of_bgr, luma_of_jpeg
from dblr_plugin.data.clips import label, positive_int, required, window_of
from dblr_plugin.data.frames import coin, flip_randomly
from dblr_plugin.data.motion import MotionWindows, WindowStore, is_window_store, read_pictures
from dblr_plugin.data.motion.windows import picture_side
from dblr_plugin.data.train_sampler import rng_of
from dblr_plugin.errors import DBLRError

__all__ = ['SyntheticMotionDataset']


@DATASET_REGISTRY.register()
class SyntheticMotionDataset(Dataset):
    """Blurry windows with camera and object motion, each with its sharp frame; see :class:`MotionWindows`.

    Args:
        opt: BasicSR's dataset options, not modified:
            dataroot_gt (str): A folder of sharp images, with one newly drawn sample per image and epoch
                (``dataset_enlarge_ratio`` makes epochs longer); or a store made by ``dblr prepare motion``, from which
                windows are read, cropped and flipped, which is much faster.
            num_frame (int): Frames in a window, odd. Default: 5.
            causal (bool): The last frame of a window is restored, not the middle one. Default: False.
            gt_size (int): Side of the square crop, in pixels: at most that of the store's windows or, if windows are
                made on the fly, a multiple of 8.
            y_only (bool): Luma only, for single-channel networks. Default: False.
            random_reverse, use_hflip, use_rot (bool): As in ``VideoDeblurDataset``. Default: False.
            scale (int, optional): Must be 1.

    Raises:
        DBLRError: The options do not match the data, or no image is large enough.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        self.opt = dict(opt)
        self.num_frame, self.causal = window_of(opt)
        self.gt_size = positive_int(opt, 'gt_size', required(opt, 'gt_size'))
        self.y_only = bool(opt.get('y_only', False))
        self.root = required(opt, 'dataroot_gt')
        self.store: WindowStore | None = None
        if is_window_store(self.root):
            self.store = self._checked_store()
        else:
            if self.gt_size % 8:
                raise DBLRError(f'{label(opt)}: gt_size is {self.gt_size}, and must be a multiple of 8 to make windows')
            self.pictures = read_pictures(self.root, self.y_only, picture_side(self.gt_size))
            self.windows = MotionWindows(self.pictures, self.gt_size, self.num_frame, self.causal)

    def __len__(self) -> int:
        return len(self.pictures) if self.store is None else len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one sample: with a plain index a new random draw each time, with a ``SampleIndex`` always the same.

        Returns:
            lq, gt: As from ``VideoDeblurDataset``: float32 (num_frame, c, gt_size, gt_size) and (c, gt_size, gt_size).
            key: The image's name, or the window's number in its store.
        """
        rng = rng_of(index)
        stack, key = self._made(index, rng) if self.store is None else self._stored(self.store, index, rng)
        if coin(self.opt, 'random_reverse', rng):
            stack = np.concatenate([stack[-2::-1], stack[-1:]])
        sample = self._to_tensor(flip_randomly(stack, self.opt, rng))
        return {'lq': sample[:-1], 'gt': sample[-1], 'key': key}

    def _made(self, index: int, rng: random.Random) -> tuple[np.ndarray, str]:
        """Returns a new window made from an image, ground truth last, uint8 (num_frame + 1, h, w, c), and its key."""
        blurry, sharp = self.windows.draw(1, rng.getrandbits(62), picture=int(index))
        return torch.cat([blurry[0], sharp]).permute(0, 2, 3, 1).numpy(), self.pictures.names[index]

    def _stored(self, store: WindowStore, index: int, rng: random.Random) -> tuple[np.ndarray, str]:
        """Returns a crop of a stored window, likewise."""
        window = store[index]
        spare = window.shape[-1] - self.gt_size
        top, left = rng.randint(0, spare), rng.randint(0, spare)
        crop = window[..., top : top + self.gt_size, left : left + self.gt_size]
        return np.asarray(crop).transpose(0, 2, 3, 1), f'window {int(index)}'

    def _to_tensor(self, stack: np.ndarray) -> Tensor:
        """Converts uint8 (n, h, w, c), grey or RGB, to the network's input, float32 (n, c, h, w)."""
        if stack.shape[-1] == 1 and self.y_only:
            values = luma_of_jpeg(stack[..., 0])  # a grey image and a JPEG's Y use the same scale
        elif self.y_only:
            values = np.stack([luma_of_bgr(frame[..., ::-1]) for frame in stack])
        else:
            values = stack.astype(np.float32) / 255
        return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))

    def _checked_store(self) -> WindowStore:
        store = WindowStore(self.root)
        info, name = store.info, label(self.opt)
        for key, wanted, held in (('num_frame', self.num_frame, info.num_frame), ('causal', self.causal, info.causal)):
            if wanted != held:
                raise DBLRError(f'{name}: {key} is {wanted}, and {self.root} was made with {held}; make another store')
        if self.gt_size > info.size:
            raise DBLRError(f'{name}: gt_size is {self.gt_size}, and windows of {self.root} have {info.size} pixels')
        if info.channels == 1 and not self.y_only:
            raise DBLRError(
                f'{name}: {self.root} holds only the Y channel; set y_only: true, or make one without --y-only'
            )
        return store
