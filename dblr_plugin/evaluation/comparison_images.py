"""Pictures to judge a training by: input, output and truth side by side, after each validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch.distributed as dist
from basicsr.utils import get_root_logger, tensor2img
from basicsr.utils.dist_util import get_dist_info
from torch.utils.data import Dataset

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.pictures import write_picture
from dblr_plugin.evaluation.validation import blurry_frame

__all__ = ['ComparisonImages']


class ComparisonImages:
    """Strips of the middle frames of a data set's first clips, as files and in TensorBoard.

    Args:
        folder: ``visualization`` of the run; strips are ``strips/<data set>/<clip>_<frame>_<iter>.png``.
        clips: How many clips to show.
        side: Largest side of the square that is cut from the middle of a frame, in pixels.
    """

    def __init__(self, folder: Path, clips: int = 4, side: int = 256) -> None:
        self.folder = folder
        self.clips = clips
        self.side = side

    def begin(self, dataset: Dataset) -> Callable[[dict, np.ndarray], None]:
        """Starts a validation; the returned function takes each sample and its restored frame, uint8 BGR."""
        self.name = dataset.opt['name']
        self.dataset = dataset
        self.strips: dict[str, np.ndarray] = {}
        return self._take

    def _take(self, sample: dict, image: np.ndarray) -> None:
        index, count = (int(number) for number in sample['idx'].split('/'))
        if index != count // 2:
            return
        frames = [tensor2img(blurry_frame(self.dataset, sample)), image]
        if 'gt' in sample:
            frames.append(tensor2img(sample['gt']))
        self.strips[f'{sample["folder"]}_{Path(sample["lq_path"]).stem}'] = np.hstack([self._cut(f) for f in frames])

    def _cut(self, frame: np.ndarray) -> np.ndarray:
        top, left = (max(0, (length - self.side) // 2) for length in frame.shape[:2])
        return frame[top : top + self.side, left : left + self.side]

    def finish(self, iteration: int, tb_logger: object | None) -> None:
        """Writes what was taken on all processes; to be called on all."""
        rank, world_size = get_dist_info()
        shares = [self.strips]
        if world_size > 1:
            shares = [None] * world_size
            dist.all_gather_object(shares, self.strips)
        strips = {name: strip for share in shares for name, strip in share.items()}
        if rank > 0:
            return
        shown = dict(list(strips.items())[: self.clips])
        try:
            for name, strip in shown.items():
                write_picture(self.folder / 'strips' / self.name / f'{name}_{iteration}.png', strip)
        except DBLRError as error:
            get_root_logger().error(f"{error}. Training goes on without this validation's strips.")
        for name, strip in shown.items():
            if tb_logger:
                rgb = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
                tb_logger.add_image(f'samples/{self.name}/{name}', rgb, iteration, dataformats='HWC')
