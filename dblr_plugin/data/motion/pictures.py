"""Sharp images of a folder, and crops of them that contain some detail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dblr_plugin.data.images import decode, is_image, natural
from dblr_plugin.errors import DBLRError, counted

__all__ = ['CELL', 'TRIES', 'SharpPictures', 'read_pictures']

CELL = 32  # side of the cells in which detail is measured, in pixels
TRIES = 4  # candidate positions for each crop
_LONGEST = 2560  # longer side in pixels; larger images are scaled down


class SharpPictures:
    """Images held in memory.

    Args:
        names: Their names in messages.
        pictures: uint8 ``(h, w, 1)`` or ``(h, w, 3)`` RGB, all with the same number of channels.
    """

    def __init__(self, names: Sequence[str], pictures: Sequence[np.ndarray]) -> None:
        self.names = list(names)
        self.pictures = list(pictures)
        self._detail = [_detail(picture) for picture in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def crops(self, count: int, size: int, generator: Generator, picture: int | None = None) -> Tensor:
        """Draws square crops, each at the most detailed of a few random positions in an image.

        Args:
            count: Number of crops.
            size: Their side in pixels, at most the shortest side of any image.
            generator: Random generator, on the CPU.
            picture: Index of the image to crop; by default, each crop is from a random one.

        Returns:
            uint8 ``(count, c, size, size)``, where c is 1 or 3 (RGB).
        """
        crops = np.empty((count, size, size, self.pictures[0].shape[2]), np.uint8)
        for crop in crops:
            number = int(torch.randint(len(self), (), generator=generator)) if picture is None else picture
            places = [self._place(number, size, generator) for _ in range(TRIES)]
            _, top, left = max(places)
            crop[:] = self.pictures[number][top : top + size, left : left + size]
        return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()

    def _place(self, number: int, size: int, generator: Generator) -> tuple[float, int, int]:
        """Draws a random position in an image: the detail in the middle of the crop, top, left."""
        height, width = self.pictures[number].shape[:2]
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        inner = slice((top + size // 4) // CELL, (top + 3 * size // 4) // CELL + 1)
        outer = slice((left + size // 4) // CELL, (left + 3 * size // 4) // CELL + 1)
        return float(self._detail[number][inner, outer].mean()), top, left


def _detail(picture: np.ndarray) -> np.ndarray:
    """Returns the mean brightness difference between neighbouring pixels at half size, in cells of 32 image pixels."""
    brightness = torch.from_numpy(picture).float().mean(-1)[None, None]
    half = F.avg_pool2d(brightness, 2)
    down, right = (half.diff(dim=axis).abs() for axis in (-2, -1))
    change = down[..., :-1] + right[..., :-1, :]
    return F.avg_pool2d(change, CELL // 2, ceil_mode=True)[0, 0].numpy()


def read_pictures(folder: str | Path, grey: bool, least: int) -> SharpPictures:
    """Decodes all images in a folder and its subfolders into memory; those that are too small are skipped.

    Args:
        folder: Folder of PNG, JPEG, WebP, TIFF or BMP files.
        grey: Convert to greyscale.
        least: Minimum length of the shorter side, in pixels.

    Raises:
        DBLRError: There is no such folder, no image is large enough, or one is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DBLRError(f'{folder}: no such folder of pictures')
    files = sorted((f for f in folder.rglob('*') if is_image(f.name) and f.is_file()), key=lambda f: natural(str(f)))
    pictures = {str(file.relative_to(folder)): _read(file, grey) for file in files}
    large = {name: picture for name, picture in pictures.items() if min(picture.shape[:2]) >= least}
    if not large:
        raise DBLRError(
            f'{folder}: none of its {counted(len(files), "image")} has {least} pixels or more on its shorter side; add '
            'larger ones'
        )
    return SharpPictures(list(large), list(large.values()))


def _read(path: Path, grey: bool) -> np.ndarray:
    """Reads an image as uint8 (h, w, 1), or (h, w, 3) RGB."""
    picture = decode(path.read_bytes(), str(path))
    factor = _LONGEST / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if grey:
        return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None]
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
