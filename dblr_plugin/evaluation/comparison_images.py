"""Restored frames and comparison images as PNG files: input, output and truth side by side, after each validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch.distributed as dist
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import get_dist_info

from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.validation import RestoredFrame
from dblr_plugin.files import atomic_write, make_folder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ['ComparisonImages', 'write_picture']


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes uint8 BGR ``(h, w, 3)`` as the PNG file ``path``, whole or not at all; makes its folder.

    Raises:
        DBLRError: If it cannot be written.
    """
    make_folder(path.parent)
    with atomic_write(path) as partial:
        partial.write_bytes(cv2.imencode('.png', image)[1].tobytes())


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

    def begin(self, dataset: VideoDeblurTestDataset) -> Callable[[RestoredFrame], None]:
        """Starts a validation; the returned function takes each restored frame."""
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
        """Writes what was taken on all processes; to be called on all."""
        rank, world_size = get_dist_info()
        shares: list[Any] = [self.strips]
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
