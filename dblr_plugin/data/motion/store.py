"""Stores generated windows as uint8 arrays in a few large files, which need no decoding."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, hold_folder, is_empty, make_folder, write_whole

__all__ = ['StoreInfo', 'WindowStore', 'WindowWriter', 'is_window_store']

_INFO = 'motion.json'
_HEADER = 128  # bytes before the values in a NumPy file


@dataclass(frozen=True)
class StoreInfo:
    """Description of a store's contents."""

    windows: int  # their number when complete
    part: int  # windows per file; the last may hold fewer
    size: int  # side of a window in pixels
    num_frame: int  # blurry frames in a window; the ground truth follows them
    channels: int  # 1 (grey) or 3 (RGB)
    causal: bool  # whether the ground truth is for the last frame, not the middle one
    seed: int
    source: str  # the images' folder, number and size in bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one window, including its ground truth."""
        return self.num_frame + 1, self.channels, self.size, self.size

    def part_size(self, part: int) -> int:
        """Returns the number of windows in one of the files."""
        return min(self.part, self.windows - part * self.part)

    @property
    def parts(self) -> int:
        """Number of files."""
        return -(-self.windows // self.part)

    def is_complete(self, folder: Path, part: int) -> bool:
        """Returns whether a part's file exists and has the expected size."""
        path = _part_file(folder, part)
        expected = _HEADER + self.part_size(part) * math.prod(self.shape)
        return path.is_file() and path.stat().st_size == expected


def is_window_store(path: str | Path) -> bool:
    """Returns whether a folder is a window store, complete or not."""
    return Path(path, _INFO).is_file()


def _part_file(folder: Path, part: int) -> Path:
    return folder / f'windows_{part:05d}.npy'


class WindowWriter:
    """Fills a folder with windows, part by part; each part appears once it is complete.

    Args:
        folder: Created if missing. An unfinished store with the same description is resumed, and one with fewer
            windows is extended.
        info: What the store should contain.

    Raises:
        DBLRError: The folder contains a different store or other files, another run is filling it, or it cannot be
            created.
    """

    def __init__(self, folder: str | Path, info: StoreInfo) -> None:
        self.folder, self.info = Path(folder), info
        if is_window_store(folder):
            held = _read_info(self.folder)
            if replace(held, windows=info.windows) != info or held.windows > info.windows:
                raise DBLRError(
                    f'{folder} holds windows made with other settings ({held}); name another folder, or remove it'
                )
        elif self.folder.is_dir() and not is_empty(self.folder):
            raise DBLRError(f'{folder} holds other files; name another folder')
        make_folder(self.folder)
        hold_folder(str(self.folder), 'name another folder')
        write_whole(self.folder / _INFO, json.dumps(asdict(info), indent=2) + '\n')

    def missing(self) -> list[int]:
        """Returns the parts still to be written, including a last part that is too short after extending a store."""
        return [part for part in range(self.info.parts) if not self.info.is_complete(self.folder, part)]

    def write(self, part: int, windows: np.ndarray) -> None:
        """Writes one part: uint8 ``(part_size, num_frame + 1, c, size, size)``, ground truth last."""
        # synced, as only its size tells later whether it is complete
        with atomic_write(_part_file(self.folder, part), sync=True) as partial, open(partial, 'wb') as file:
            np.save(file, windows)


class WindowStore:
    """Reads the windows of a store; raises DBLRError if it is incomplete or damaged."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        for part in range(self.info.parts):
            if not self.info.is_complete(self.folder, part):
                raise DBLRError(
                    f'{_part_file(self.folder, part)} is missing or incomplete; run the same dblr prepare motion again'
                )
        self._open: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.info.windows

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one window, uint8 ``(num_frame + 1, c, size, size)``, ground truth last; a view of the file."""
        part, place = divmod(index, self.info.part)
        if part not in self._open:
            self._open[part] = np.load(_part_file(self.folder, part), mmap_mode='r')
        return self._open[part][place]

    def __getstate__(self) -> dict:
        """Returns the state without open files; each process opens its own."""
        return {**self.__dict__, '_open': {}}


def _read_info(folder: Path) -> StoreInfo:
    path = folder / _INFO
    try:
        return StoreInfo(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DBLRError(f'{path} cannot be read ({error}); make the store again with dblr prepare motion') from error
