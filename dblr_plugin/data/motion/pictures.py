"""A folder of sharp pictures, and crops of them where there is something to see."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

from dblr_plugin.data.images import decode, is_image, natural
from dblr_plugin.errors import DBLRError

__all__ = ['SharpPictures']

_LONGEST = 2560  # pixels of a picture's longer side; larger ones are scaled down
_CELL = 32  # pixels of a cell's side, in which detail is measured
_TRIES = 4  # places looked at for each crop


class SharpPictures:
    """Pictures of a folder and its subfolders, decoded once and kept as uint8.

    Args:
        folder: Holds PNG, JPEG, WebP, TIFF or BMP files.
        grey: Keep brightness alone.
        least: Pixels of the smallest side that is of use; smaller pictures are left out.

    Raises:
        DBLRError: There is no such folder, no picture of that size, or one is damaged.
    """

    def __init__(self, folder: str | Path, grey: bool, least: int) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DBLRError(f'{folder}: no such folder of pictures')
        files = sorted((f for f in folder.rglob('*') if is_image(f.name) and f.is_file()), key=lambda f: natural(str(f)))
        loaded = [(str(f.relative_to(folder)), _load(f, grey)) for f in files]
        kept = [(name, picture) for name, picture in loaded if min(picture.shape[:2]) >= least]
        if not kept:
            raise DBLRError(
                f'{folder}: none of its {len(files)} pictures has {least} pixels on its shorter side; add larger ones'
            )
        self.names = [name for name, _ in kept]
        self.pictures = [picture for _, picture in kept]
        self.left_out = [name for name, picture in loaded if min(picture.shape[:2]) < least]
        self._detail = [_detail(picture) for picture in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def crops(self, count: int, size: int, generator: Generator, picture: int | None = None) -> Tensor:
        """Draws square crops; of a few places in a picture, that with most detail.

        Args:
            count: How many.
            size: Their side in pixels, at most ``least``.
            generator: What they are drawn from, on the CPU.
            picture: Which picture all are of; by default each is of any.

        Returns:
            uint8 ``(count, c, size, size)``, c being 1 or 3 (RGB).
        """
        crops = np.empty((count, size, size, self.pictures[0].shape[2]), np.uint8)
        for crop in crops:
            number = int(torch.randint(len(self), (), generator=generator)) if picture is None else picture
            places = [self._place(number, size, generator) for _ in range(_TRIES)]
            _, top, left = max(places)
            crop[:] = self.pictures[number][top : top + size, left : left + size]
        return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()

    def _place(self, number: int, size: int, generator: Generator) -> tuple[float, int, int]:
        """A random place in a picture: the detail in the middle of the crop, top, left."""
        height, width = self.pictures[number].shape[:2]
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        inner = slice((top + size // 4) // _CELL, (top + 3 * size // 4) // _CELL + 1)
        outer = slice((left + size // 4) // _CELL, (left + 3 * size // 4) // _CELL + 1)
        return float(self._detail[number][inner, outer].mean()), top, left


def _load(path: Path, grey: bool) -> np.ndarray:
    """uint8 (h, w, 1) or (h, w, 3), RGB."""
    picture = decode(path.read_bytes(), str(path))
    factor = _LONGEST / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if grey:
        return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None]
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _detail(picture: np.ndarray) -> np.ndarray:
    """Mean change of brightness from pixel to pixel, at half size, in cells of 32 pixels of the picture."""
    brightness = picture[..., 0] if picture.shape[2] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    half = cv2.resize(brightness, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    change = np.abs(cv2.Sobel(half, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(half, cv2.CV_32F, 0, 1))
    cells = (max(1, -(-picture.shape[1] // _CELL)), max(1, -(-picture.shape[0] // _CELL)))
    return cv2.resize(change, cells, interpolation=cv2.INTER_AREA)
