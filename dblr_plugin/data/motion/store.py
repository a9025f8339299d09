"""Stores generated windows as uint8 arrays in a few large files, which are read without decoding."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, write_whole

__all__ = ['StoreInfo', 'WindowStore', 'WindowWriter', 'is_window_store']

_INFO = 'motion.json'
_HEADER = 128  # bytes in front of the values in NumPy's files


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        windows: Their number when it is complete.
        part: Windows in one file; the last may hold fewer.
        size: Side of a window in pixels.
        num_frame: Blurry frames in a window; the truth follows them.
        channels: 1 (grey) or 3 (RGB).
        causal: Whether the truth is of the last frame, not of the middle one.
        seed: What the windows were drawn from.
        source: The pictures, with their number and bytes.
    """

    windows: int
    part: int
    size: int
    num_frame: int
    channels: int
    causal: bool
    seed: int
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        """That of one window, its truth included."""
        return self.num_frame + 1, self.channels, self.size, self.size

    def part_size(self, part: int) -> int:
        """The windows in one of the files."""
        return min(self.part, self.windows - part * self.part)

    @property
    def parts(self) -> int:
        """The number of files."""
        return -(-self.windows // self.part)

    def is_complete(self, folder: Path, part: int) -> bool:
        """Whether a part's file is there and as long as it must be."""
        path = _part_file(folder, part)
        expected = _HEADER + self.part_size(part) * math.prod(self.shape)
        return path.is_file() and path.stat().st_size == expected


def is_window_store(path: str | Path) -> bool:
    """Whether a folder is a store of windows, complete or not."""
    return Path(path, _INFO).is_file()


def _part_file(folder: Path, part: int) -> Path:
    return folder / f'windows_{part:05d}.npy'


class WindowWriter:
    """Fills a folder with windows, part by part; each part appears when it is complete.

    Args:
        folder: Made where it is missing. An unfinished store of the same description is continued, and one of fewer
            windows is enlarged.
        info: What it is to hold.

    Raises:
        DBLRError: The folder holds another store, or other files, or cannot be made.
    """

    def __init__(self, folder: str | Path, info: StoreInfo) -> None:
        self.folder, self.info = Path(folder), info
        if is_window_store(folder):
            held = _read_info(self.folder)
            if replace(held, windows=info.windows) != info or held.windows > info.windows:
                raise DBLRError(f'{folder} holds windows made otherwise ({held}); name another folder, or remove it')
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise DBLRError(f'{folder} holds other files; name another folder')
        write_whole(self.folder / _INFO, json.dumps(asdict(info), indent=2) + '\n')

    def missing(self) -> list[int]:
        """The parts that are still to be written: a store that is enlarged may end with one that is too small."""
        return [part for part in range(self.info.parts) if not self.info.is_complete(self.folder, part)]

    def write(self, part: int, windows: np.ndarray) -> None:
        """Writes one part: uint8 ``(part_size, num_frame + 1, c, size, size)``, the truth last."""
        with atomic_write(_part_file(self.folder, part)) as partial, open(partial, 'wb') as file:
            np.save(file, windows)


class WindowStore:
    """Reads the windows of a store.

    Args:
        folder: The store.

    Raises:
        DBLRError: It is incomplete or damaged.
    """

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
        """uint8 ``(num_frame + 1, c, size, size)``, the truth last; a view of the file."""
        part, place = divmod(index, self.info.part)
        if part not in self._open:
            self._open[part] = np.load(_part_file(self.folder, part), mmap_mode='r')
        return self._open[part][place]

    def __getstate__(self) -> dict:
        """Without open files, which each process opens for itself."""
        return {**self.__dict__, '_open': {}}


def _read_info(folder: Path) -> StoreInfo:
    path = folder / _INFO
    try:
        return StoreInfo(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DBLRError(f'{path} cannot be read ({error}); make the store again with dblr prepare motion') from error
