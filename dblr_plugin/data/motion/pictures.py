"""Sharp pictures of a folder, and crops of them that show some detail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dblr_plugin.data.images import decode, is_image, natural
from dblr_plugin.errors import DBLRError

__all__ = ['CELL', 'TRIES', 'SharpPictures', 'read_pictures']

CELL = 32  # pixels of a cell's side, in which detail is measured
TRIES = 4  # places looked at for each crop
_LONGEST = 2560  # pixels of a picture's longer side; larger ones are scaled down


class SharpPictures:
    """Pictures in memory.

    Args:
        names: What messages call them.
        pictures: uint8 ``(h, w, 1)`` or ``(h, w, 3)`` RGB, all alike.
    """

    def __init__(self, names: Sequence[str], pictures: Sequence[np.ndarray]) -> None:
        self.names = list(names)
        self.pictures = list(pictures)
        self._detail = [_detail(picture) for picture in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def crops(self, count: int, size: int, generator: Generator, picture: int | None = None) -> Tensor:
        """Draws square crops; of a few places in a picture, that with most detail.

        Args:
            count: How many.
            size: Their side in pixels, at most the shortest side of any picture.
            generator: What they are drawn from, on the CPU.
            picture: Which picture all are of; by default each is of any.

        Returns:
            uint8 ``(count, c, size, size)``, c being 1 or 3 (RGB).
        """
        crops = np.empty((count, size, size, self.pictures[0].shape[2]), np.uint8)
        for crop in crops:
            number = int(torch.randint(len(self), (), generator=generator)) if picture is None else picture
            places = [self._place(number, size, generator) for _ in range(TRIES)]
            _, top, left = max(places)
            crop[:] = self.pictures[number][top : top + size, left : left + size]
        return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()

    def _place(self, number: int, size: int, generator: Generator) -> tuple[float, int, int]:
        """A random place in a picture: the detail in the middle of the crop, top, left."""
        height, width = self.pictures[number].shape[:2]
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        inner = slice((top + size // 4) // CELL, (top + 3 * size // 4) // CELL + 1)
        outer = slice((left + size // 4) // CELL, (left + 3 * size // 4) // CELL + 1)
        return float(self._detail[number][inner, outer].mean()), top, left


def _detail(picture: np.ndarray) -> np.ndarray:
    """Mean change of brightness from pixel to pixel, at half size, in cells of 32 pixels of the picture."""
    brightness = torch.from_numpy(picture).float().mean(-1)[None, None]
    half = F.avg_pool2d(brightness, 2)
    down, right = (half.diff(dim=axis).abs() for axis in (-2, -1))
    change = down[..., :-1] + right[..., :-1, :]
    return F.avg_pool2d(change, CELL // 2, ceil_mode=True)[0, 0].numpy()


def read_pictures(folder: str | Path, grey: bool, least: int) -> SharpPictures:
    """Decodes the pictures of a folder and its subfolders, which stay in memory; those that are too small are left out.

    Args:
        folder: Holds PNG, JPEG, WebP, TIFF or BMP files.
        grey: Keep brightness alone.
        least: Pixels that the shorter side needs.

    Raises:
        DBLRError: There is no such folder, no picture of that size, or one is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DBLRError(f'{folder}: no such folder of pictures')
    files = sorted((f for f in folder.rglob('*') if is_image(f.name) and f.is_file()), key=lambda f: natural(str(f)))
    pictures = {str(file.relative_to(folder)): _read(file, grey) for file in files}
    large = {name: picture for name, picture in pictures.items() if min(picture.shape[:2]) >= least}
    if not large:
        raise DBLRError(
            f'{folder}: none of its {len(files)} pictures has {least} pixels on its shorter side; add larger ones'
        )
    return SharpPictures(list(large), list(large.values()))


def _read(path: Path, grey: bool) -> np.ndarray:
    """uint8 (h, w, 1) or (h, w, 3), RGB."""
    picture = decode(path.read_bytes(), str(path))
    factor = _LONGEST / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if grey:
        return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None]
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
