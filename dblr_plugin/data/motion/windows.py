"""Makes windows of blurry frames, each with its sharp middle frame, from pictures. Every window follows from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from dblr_plugin.archs.traits import restored_index
from dblr_plugin.data.linear_light import to_linear_light
from dblr_plugin.data.motion.pictures import SharpPictures
from dblr_plugin.data.motion.scene import (
    Layer,
    Path,
    pixel_line,
    random_depth,
    random_masks,
    random_path,
    render,
    uniform,
)

__all__ = ['MotionWindows', 'compressed', 'encoded', 'jpeg', 'noisy', 'picture_side']

# Table K.1 of ITU-T T.81, the quantisation of brightness that libjpeg scales by quality
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def encoded(light: Tensor) -> Tensor:
    """Linear light, clipped to [0, 1], as sRGB values in [0, 1] (IEC 61966-2-1); any shape."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.04045 / 12.92, light * 12.92, 1.055 * light.clamp_min(1e-4) ** (1 / 2.4) - 0.055)


def noisy(light: Tensor, generator: Generator) -> Tensor:
    """Adds a sensor's noise to a third of the windows, each with an amount of its own.

    The variance grows with the light (shot noise, 1e-5 to 5e-4 of it) from a floor (read noise, of a standard
    deviation of 2e-4 to 2e-3).

    Args:
        light: ``(b, t, c, h, w)`` linear light.
        generator: What the noise is drawn from.
    """
    shape = (len(light), 1, 1, 1, 1)
    shot, read = (10 ** uniform(*range_, shape, generator) for range_ in ((-5.0, -3.3), (-3.7, -2.7)))
    amount = (shot * light.clamp_min(0) + read**2).sqrt() * (uniform(0, 1, shape, generator) < 1 / 3)
    return light + amount * torch.randn(light.shape, generator=generator, device=light.device)


def compressed(values: Tensor, generator: Generator) -> Tensor:
    """A third of the windows as JPEG of quality 50 to 95 leaves them, the others as they are; as :func:`jpeg`."""
    quality = uniform(50, 95, (len(values),), generator).round()
    chosen = uniform(0, 1, (len(values), 1, 1, 1, 1), generator) < 1 / 3
    return torch.where(chosen, jpeg(values, quality), values)


def jpeg(values: Tensor, quality: Tensor) -> Tensor:
    """Quantises values as JPEG does with brightness; every channel alike.

    Args:
        values: ``(b, t, c, h, w)`` in [0, 1]; h and w are multiples of 8.
        quality: ``(b,)``, libjpeg's, 1 to 100.
    """
    b, h, w = len(values), *values.shape[-2:]
    quality = quality.view(-1, 1, 1, 1, 1, 1)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    table = torch.tensor(_LUMINANCE, device=values.device).view(8, 1, 8)
    table = ((table * percent + 50) / 100).floor().clamp(1, 255)
    dct = _dct_matrix(values.device)
    blocks = values.reshape(b, -1, h // 8, 8, w // 8, 8) * 255 - 128
    spectrum = torch.einsum('ui,bnyixj,vj->bnyuxv', dct, blocks, dct)
    spectrum = (spectrum / table).round() * table
    blocks = torch.einsum('ui,bnyuxv,vj->bnyixj', dct, spectrum, dct)
    return ((blocks + 128) / 255).clamp(0, 1).reshape(values.shape)


def _dct_matrix(device: torch.device) -> Tensor:
    """``(8, 8)``: the orthonormal DCT-II, one frequency a row."""
    index = torch.arange(8, device=device, dtype=torch.float32)
    matrix = 0.5 * torch.cos(math.pi / 8 * index[:, None] * (index + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix


_SPACING = 1.5  # pixels between the moments that are averaged for one exposure, at most;
_MOST_MOMENTS = 20  # but where objects blur by more than 30 pixels, up to 2.5


@dataclass(frozen=True)
class _Kind:
    """A kind of motion; speeds are the most, in pixels a frame, exposures parts of the time between two frames."""

    share: float
    camera: float
    objects: float
    exposure: tuple[float, float]
    is_sharp: bool = False

    @property
    def blur(self) -> float:
        """The longest blur in pixels."""
        return 1.0 if self.is_sharp else max(self.camera, self.objects)


_STILL = _Kind(0.06, camera=0, objects=0, exposure=(0, 0), is_sharp=True)
_SHORT = _Kind(0.14, camera=20, objects=30, exposure=(0, 0.15), is_sharp=True)
_GENTLE = _Kind(0.40, camera=8, objects=12, exposure=(0.3, 1.1))
_STRONG = _Kind(0.40, camera=20, objects=50, exposure=(0.3, 1.1))
_KINDS = (_STILL, _SHORT, _GENTLE, _STRONG)


def picture_side(size: int) -> int:
    """Pixels that a picture needs on its shorter side for windows of ``size`` pixels: half of them are scaled away."""
    return 4 * size


class MotionWindows:
    """Makes windows of consecutive exposures and their truth.

    A camera moves over a picture, smoothly, by hand, turning or zooming, up to 20 pixels a frame, the near faster than
    the far; in two windows of three one or two objects cut from other pictures move in front, up to 50 pixels a frame.
    Pictures are scaled down by 1.4 to 2, so that every pixel is sharp. Exposures last 30 to 100 percent of the time
    between two frames and are averaged in linear light. A third of the windows gets noise, a third JPEG's
    quantisation; in one of five highlights are brighter than white. A fifth of the windows has no blur, or less than a
    pixel: there the truth is the input.

    Args:
        pictures: What is seen.
        size: Side of a window in pixels, a multiple of 8.
        num_frame: Frames in a window.
        causal: The truth is of the last frame, not of the middle one.
        device: Where windows are made.
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
        self.restored = restored_index(num_frame, causal)
        self.offsets = [frame - self.restored for frame in range(num_frame)]
        self._line = pixel_line(size, self.device)
        self._light = torch.from_numpy(to_linear_light(np.arange(256, dtype=np.uint8))).to(self.device)

    @torch.no_grad()
    def draw(self, count: int, seed: int, picture: int | None = None) -> tuple[Tensor, Tensor]:
        """Makes windows that share a kind of motion and a number of objects.

        Args:
            count: How many.
            seed: All that is random follows from it.
            picture: Which picture is the background; by default each window draws one.

        Returns:
            Blurry frames ``(count, num_frame, c, size, size)`` and truth ``(count, c, size, size)``, uint8, as stored
            in a file: grey, or RGB.
        """
        places = Generator().manual_seed(seed)
        generator = places if self.device.type == 'cpu' else Generator(self.device).manual_seed(seed)
        kind = _KINDS[int(torch.multinomial(torch.tensor([k.share for k in _KINDS]), 1, generator=places))]
        objects = int(torch.multinomial(torch.tensor([0.35, 0.4, 0.25]), 1, generator=places))
        brightness = self._brightness(count, generator)
        camera = _moving(random_path(count, kind.camera, generator), 0.8, generator)
        layers = [self._background(count, places, picture, generator, brightness, camera)]
        paths = [camera]
        for _ in range(objects):
            paths.append(_together(camera, random_path(count, kind.objects, generator)))
            layers.append(self._object(count, places, generator, brightness, paths[-1]))
        exposure = uniform(*kind.exposure, (count,), generator).clamp(max=1)
        if kind.is_sharp:
            exposure = torch.minimum(exposure, 1 / _fastest(paths).clamp_min(1e-3))
        moments = min(_MOST_MOMENTS, math.ceil(kind.blur / _SPACING) + 1) if kind is not _STILL else 1
        spread = ((torch.arange(moments, device=self.device) + 0.5) / moments - 0.5)[:, None] * exposure
        light = torch.stack([render(layers, spread + offset, self._line) for offset in self.offsets], 1)
        frames = _bytes(compressed(encoded(noisy(light, generator)), generator))
        if kind.is_sharp:
            return frames, frames[:, self.restored].clone()
        now = torch.zeros(1, count, device=self.device)
        return frames, _bytes(encoded(render(layers, now, self._line)))

    def _brightness(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """For each window a gain of the light, and how much brighter than white its highlights are."""
        gain = uniform(0.7, 1.15, (count, 1, 1, 1), generator)
        boost = uniform(0, 20, (count, 1, 1, 1), generator) * (uniform(0, 1, (count, 1, 1, 1), generator) < 0.2)
        return gain, boost

    def _texture(self, crops: Tensor, brightness: tuple[Tensor, Tensor]) -> Tensor:
        """Linear light of crops, averaged over two by two texels, as pixels of half the size see it."""
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
        path: Path,
    ) -> Layer:
        light = self._texture(self.pictures.crops(count, picture_side(self.size), places, picture), brightness)
        return Layer(
            light,
            uniform(1.4, 2, (count,), generator),
            uniform(-0.5, 0.5, (count, 2), generator),
            path,
            random_depth(count, self.size, generator),
            is_opaque=True,
        )

    def _object(
        self, count: int, places: Generator, generator: Generator, brightness: tuple[Tensor, Tensor], path: Path
    ) -> Layer:
        side = 2 * self.size
        light = self._texture(self.pictures.crops(count, side, places), brightness)
        opacity = random_masks(count, light.shape[-1], generator)
        return Layer(
            torch.cat([light * opacity, opacity], 1),
            uniform(1.4, 2, (count,), generator),
            uniform(-0.5 * self.size, 0.5 * self.size, (count, 2), generator),
            path,
        )


def _moving(path: Path, share: float, generator: Generator) -> Path:
    """The path, with that share of the scenes moving and the others at rest."""
    return path.select((uniform(0, 1, (len(path.velocity),), generator) < share).float())


def _together(camera: Path, own: Path) -> Path:
    """What an object does before the camera: the motion of both."""
    return Path(
        camera.velocity + own.velocity,
        torch.cat([camera.tremor, own.tremor], 1),
        torch.cat([camera.rates, own.rates], 1),
        torch.cat([camera.phases, own.phases], 1),
    )


def _fastest(paths: list[Path]) -> Tensor:
    """``(b,)``: pixels a frame that anything in each scene moves around the middle of the window, at most."""
    half = torch.full((len(paths[0].velocity),), 0.5, device=paths[0].velocity.device)
    speeds = [(path.pose(half) - path.pose(-half))[:, :2].norm(dim=1) for path in paths]
    return torch.stack(speeds).max(0).values


def _bytes(values: Tensor) -> Tensor:
    """Values in [0, 1] as uint8."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)
