"""Generates and stores windows of synthetic motion from sharp images, for training without blurry videos."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dblr_plugin.data.images import is_image
from dblr_plugin.data.motion import MotionWindows, SharpPictures, WindowWriter, read_pictures
from dblr_plugin.data.motion.sensor import require_h264
from dblr_plugin.data.motion.store import StoreInfo
from dblr_plugin.data.motion.windows import picture_side
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.files import require_space
from dblr_plugin.processes import fork_context, usable_cores

__all__ = ['MotionSettings', 'prepare_motion']

PART = 256  # windows in one file
BATCH = 4  # windows generated together, sharing a kind of motion; small enough for a CPU's cache


@dataclass(frozen=True)
class MotionSettings:
    """Settings for generating windows.

    Args:
        windows: Number of windows.
        size: Their side in pixels, a multiple of 8.
        num_frame: Blurry frames in each, odd.
        y_only: Luma only.
        causal: Whether the ground truth is for the last frame, not the middle one.
        seed: Random seed.
        processes: Number of parallel processes; does not affect the result.

    Raises:
        DBLRError: A setting is out of range.
    """

    windows: int = 50_000
    size: int = 128
    num_frame: int = 5
    y_only: bool = False
    causal: bool = False
    seed: int = 0
    processes: int = usable_cores()

    def __post_init__(self) -> None:
        if min(self.windows, self.processes) < 1 or self.seed < 0:
            raise DBLRError('windows and processes must be at least 1, and the seed cannot be negative')
        if self.size < 8 or self.size % 8:
            raise DBLRError(f'the size must be a multiple of 8, got {self.size}')
        if self.num_frame < 1 or self.num_frame % 2 == 0:
            raise DBLRError(f'the number of frames must be odd, got {self.num_frame}')


def prepare_motion(src: Path, dst: Path, recipe: MotionSettings) -> StoreInfo:
    """Fills a store with windows, resuming an earlier run with the same recipe and images.

    Args:
        src: A folder of sharp images.
        dst: The store's folder.
        recipe: How the windows are made.

    Raises:
        DBLRError: PyAV is not installed, there are no usable images, ``dst`` contains something else, or the disk is
            too small.
    """
    require_h264()
    pictures = _pictures(src, recipe)  # also read here, to report faults before anything starts
    # of images alone: the store may be below them, and file managers leave files of their own
    bytes_ = sum(path.stat().st_size for path in src.rglob('*') if is_image(path.name) and path.is_file())
    info = StoreInfo(
        recipe.windows, PART, recipe.size, recipe.num_frame, 1 if recipe.y_only else 3, recipe.causal, recipe.seed,
        f'{counted(len(pictures), "picture")} of {src.resolve().name} ({bytes_} bytes)',
    )  # fmt: skip
    writer = WindowWriter(dst, info)
    missing = writer.missing()
    needed = sum(info.part_size(part) for part in missing) * int(np.prod(info.shape))
    require_space(dst, needed, f'the store of {counted(recipe.windows, "window")}')
    made = recipe.windows - sum(info.part_size(part) for part in missing)
    with tqdm(total=recipe.windows, initial=made, desc='windows', unit='window') as bar:
        for count in _made(src, recipe, writer, missing):
            bar.update(count)
    return info


def _made(src: Path, recipe: MotionSettings, writer: WindowWriter, parts: list[int]) -> Iterator[int]:
    """Generates parts of a store; yields the number of windows in each."""
    if recipe.processes == 1:
        threads = torch.get_num_threads()
        try:
            _start(src, recipe, writer)
            yield from map(_make_part, parts)
        finally:
            torch.set_num_threads(threads)
        return
    context = fork_context()
    with ProcessPoolExecutor(recipe.processes, context, initializer=_start, initargs=(src, recipe, writer)) as pool:
        try:
            yield from pool.map(_make_part, parts)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_worker: tuple[MotionWindows, WindowWriter]


def _start(src: Path, recipe: MotionSettings, writer: WindowWriter) -> None:
    """Initialises a worker process."""
    global _worker
    torch.set_num_threads(1)
    _worker = MotionWindows(_pictures(src, recipe), recipe.size, recipe.num_frame, recipe.causal), writer


def _pictures(src: Path, recipe: MotionSettings) -> SharpPictures:
    return read_pictures(src, recipe.y_only, picture_side(recipe.size))


def _make_part(part: int) -> int:
    """Generates one file of a store; returns the number of its windows."""
    windows, writer = _worker
    count = writer.info.part_size(part)
    held = np.empty((count, *writer.info.shape), np.uint8)
    for first in range(0, count, BATCH):
        some = min(BATCH, count - first)
        seed = (writer.info.seed * 1_000_003 + part) * writer.info.part + first
        blurry, sharp = windows.draw(some, seed)
        held[first : first + some, :-1] = blurry.numpy()
        held[first : first + some, -1] = sharp.numpy()
    writer.write(part, held)
    return count
