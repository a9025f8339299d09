"""Generates windows of blurry frames with a sharp ground truth from images; a seed determines every window.

The windows show crops of the images that contain some detail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dblr_plugin.archs.traits import restored_index
from dblr_plugin.colour import to_linear_light
from dblr_plugin.data.images import decode, is_image, natural
from dblr_plugin.data.motion import scene
from dblr_plugin.data.motion.scene import Layer, random_path, render, uniform
from dblr_plugin.data.motion.sensor import compressed, encoded, flickering, noisy, require_h264, to_bytes
from dblr_plugin.errors import DBLRError, counted

__all__ = ['CELL', 'TRIES', 'MotionWindows', 'SharpPictures', 'picture_side', 'read_pictures']

CELL = 32  # side of the cells in which detail is measured, in pixels
TRIES = 4  # candidate positions for each crop
_LONGEST = 2560  # longer side in pixels; larger images are scaled down


class SharpPictures:
    """Named images in memory: uint8 ``(h, w, 1)`` or ``(h, w, 3)`` RGB, all with the same number of channels."""

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


# ---------------------------------------------------------------------- windows

_SPACING = 1.5  # maximum distance in pixels between the moments averaged for one exposure;
_MOST_MOMENTS = 20  # but up to 2.5 pixels if objects blur by more than 30 pixels


@dataclass(frozen=True)
class _Kind:
    """A kind of motion: maximum speeds in pixels per frame, and exposure times as fractions of the frame interval."""

    share: float
    camera: float
    objects: float
    exposure: tuple[float, float]
    is_sharp: bool = False

    @property
    def blur(self) -> float:
        """Maximum length of the blur, in pixels."""
        return 1.0 if self.is_sharp else max(self.camera, self.objects)


_STILL = _Kind(0.06, camera=0, objects=0, exposure=(0, 0), is_sharp=True)
_SHORT = _Kind(0.14, camera=20, objects=30, exposure=(0, 0.15), is_sharp=True)
_GENTLE = _Kind(0.40, camera=8, objects=12, exposure=(0.3, 1.1))
_STRONG = _Kind(0.40, camera=20, objects=50, exposure=(0.3, 1.1))
_KINDS = (_STILL, _SHORT, _GENTLE, _STRONG)


def picture_side(size: int) -> int:
    """Returns the minimum shorter side of an image for windows of ``size`` pixels; scaling down up to halves it."""
    return 4 * size


class MotionWindows:
    """Generates windows of consecutive exposures and their ground truth.

    A camera moves over an image at up to 20 pixels per frame: smoothly, hand-held, rotating or zooming, and with
    parallax. In two thirds of the windows, one or two objects cut from other images move in front, at up to 50 pixels
    per frame. Images are scaled down by 1.4 to 2, so that every pixel is sharp. Exposures last 30 to 100 percent of the
    frame interval and are averaged in linear light. A third of the windows get noise, a third JPEG quantisation and, if
    made on a CPU, a sixth H.264 compression; in a fifth, highlights are brighter than white, and in a tenth, brightness
    varies from frame to frame. A fifth of the windows have no blur, or about a pixel at most; their ground truth is the
    input.

    Args:
        pictures: The images to use.
        size: Side of a window in pixels, a multiple of 8.
        num_frame: Frames in a window.
        causal: Whether the ground truth is for the last frame, not the middle one.
        device: Where windows are generated.

    Raises:
        DBLRError: The device is a CPU, and PyAV, which encodes H.264, is not installed.
    """

    def __init__(
        self,
        pictures: SharpPictures,
        size: int,
        num_frame: int = 5,
        causal: bool = False,
        device: torch.device | str = 'cpu',
    ) -> None:
        self.pictures = pictures
        self.size = size
        self.device = torch.device(device)
        if self.device.type == 'cpu':
            require_h264()
        self.restored = restored_index(num_frame, causal)
        self.offsets = [frame - self.restored for frame in range(num_frame)]
        self._line = scene.pixel_line(size, self.device)
        self._light = torch.from_numpy(to_linear_light(np.arange(256, dtype=np.uint8))).to(self.device)

    @torch.no_grad()
    def draw(self, count: int, seed: int, picture: int | None = None) -> tuple[Tensor, Tensor]:
        """Generates windows that share a kind of motion and a number of objects.

        Args:
            count: Number of windows.
            seed: Determines everything random.
            picture: Index of the background image; by default, a random one for each window.

        Returns:
            Blurry frames ``(count, num_frame, c, size, size)`` and ground truth ``(count, c, size, size)``, uint8,
            encoded as in a file: grey, or RGB.
        """
        places = Generator().manual_seed(seed)
        generator = places if self.device.type == 'cpu' else Generator(self.device).manual_seed(seed)
        kind = _KINDS[int(torch.multinomial(torch.tensor([k.share for k in _KINDS]), 1, generator=places))]
        objects = int(torch.multinomial(torch.tensor([0.35, 0.4, 0.25]), 1, generator=places))
        brightness = self._brightness(count, generator)
        camera = random_path(count, kind.camera, generator)
        camera = camera.select((uniform(0, 1, (count,), generator) < 0.8).float())  # the others stand on a tripod
        layers = [self._background(count, places, picture, generator, brightness, camera)]
        for _ in range(objects):
            path = _together(camera, random_path(count, kind.objects, generator))
            layers.append(self._object(count, places, generator, brightness, path))
        exposure = uniform(*kind.exposure, (count,), generator).clamp(max=1)
        if kind.is_sharp:
            exposure = torch.minimum(exposure, 1 / _fastest(layers).clamp_min(1e-3))
        moments = min(_MOST_MOMENTS, math.ceil(kind.blur / _SPACING) + 1) if kind is not _STILL else 1
        spread = ((torch.arange(moments, device=self.device) + 0.5) / moments - 0.5)[:, None] * exposure
        light = torch.stack([render(layers, spread + offset, self._line) for offset in self.offsets], 1)
        light = noisy(flickering(light, self.restored, generator), generator)
        frames = compressed(encoded(light), generator)
        if kind.is_sharp:
            return frames, frames[:, self.restored].clone()
        now = torch.zeros(1, count, device=self.device)
        return frames, to_bytes(encoded(render(layers, now, self._line)))

    def _brightness(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws, for each window, a gain for the light, and how far its highlights exceed white."""
        gain = uniform(0.7, 1.15, (count, 1, 1, 1), generator)
        boost = uniform(0, 20, (count, 1, 1, 1), generator) * (uniform(0, 1, (count, 1, 1, 1), generator) < 0.2)
        return gain, boost

    def _texture(self, crops: Tensor, brightness: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the linear light of crops, averaged over 2x2 texels, to match scaling down by about 2."""
        gain, boost = brightness
        light = self._light[crops.to(self.device).int()] * gain
        light = light + boost * (light - 0.75).clamp_min(0)
        light = light[..., 1:] + light[..., :-1]
        return (light[..., 1:, :] + light[..., :-1, :]) / 4

    def _background(
        self,
        count: int,
        places: Generator,
        picture: int | None,
        generator: Generator,
        brightness: tuple[Tensor, Tensor],
        path: scene.Path,
    ) -> Layer:
        light = self._texture(self.pictures.crops(count, picture_side(self.size), places, picture), brightness)
        return Layer(
            light,
            uniform(1.4, 2, (count,), generator),
            uniform(-0.5, 0.5, (count, 2), generator),
            path,
            scene.random_depth(count, self.size, generator),
            is_opaque=True,
        )

    def _object(
        self, count: int, places: Generator, generator: Generator, brightness: tuple[Tensor, Tensor], path: scene.Path
    ) -> Layer:
        side = 2 * self.size
        light = self._texture(self.pictures.crops(count, side, places), brightness)
        opacity = scene.random_masks(count, light.shape[-1], generator)
        return Layer(
            torch.cat([light * opacity, opacity], 1),
            uniform(1.4, 2, (count,), generator),
            uniform(-0.5 * self.size, 0.5 * self.size, (count, 2), generator),
            path,
        )


def _together(camera: scene.Path, own: scene.Path) -> scene.Path:
    """Returns an object's motion relative to the camera: the sum of both motions."""
    return scene.Path(
        camera.velocity + own.velocity,
        torch.cat([camera.tremor, own.tremor], 1),
        torch.cat([camera.rates, own.rates], 1),
        torch.cat([camera.phases, own.phases], 1),
    )


def _fastest(layers: list[Layer]) -> Tensor:
    """Returns the maximum speed of anything in each scene, ``(b,)``, in pixels per frame at time 0; rotation aside."""
    # a short time: over a frame interval, tremor may return to where it was
    half = torch.full((len(layers[0].centre),), 0.01, device=layers[0].centre.device)
    speeds = [(layer.path.pose(half) - layer.path.pose(-half))[:, :2].norm(dim=1) / 0.02 for layer in layers]
    depths = [1 if layer.depth is None else layer.depth.amax((1, 2, 3)) for layer in layers]
    return torch.stack([speed * depth for speed, depth in zip(speeds, depths, strict=True)]).amax(0)
