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
from dblr_plugin.data.motion.sensor import compressed, encoded, flickering, noisy, require_h264

__all__ = ['MotionWindows', 'picture_side']

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
    quantisation and, if made on a CPU, a sixth H.264's; in one of five highlights are brighter than white, in one of
    ten brightness jumps from frame to frame. A fifth of the windows has no blur, or less than a pixel: there the truth
    is the input.

    Args:
        pictures: What is seen.
        size: Side of a window in pixels, a multiple of 8.
        num_frame: Frames in a window.
        causal: The truth is of the last frame, not of the middle one.
        device: Where windows are made.

    Raises:
        DBLRError: They are to be made on a CPU, and PyAV, which encodes H.264, is not installed.
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
        light = noisy(flickering(light, self.restored, generator), generator)
        frames = compressed(encoded(light), generator)
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
