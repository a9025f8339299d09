"""Generates windows of blurry frames with a sharp ground truth from images; a seed determines every window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from dblr_plugin.archs.traits import restored_index
from dblr_plugin.colour import to_linear_light
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
    varies from frame to frame. A fifth of the windows have no blur, or less than a pixel; their ground truth is the
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
        self._line = pixel_line(size, self.device)
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
    """Returns the path with a random ``share`` of the scenes moving and the others at rest."""
    return path.select((uniform(0, 1, (len(path.velocity),), generator) < share).float())


def _together(camera: Path, own: Path) -> Path:
    """Returns an object's motion relative to the camera: the sum of both motions."""
    return Path(
        camera.velocity + own.velocity,
        torch.cat([camera.tremor, own.tremor], 1),
        torch.cat([camera.rates, own.rates], 1),
        torch.cat([camera.phases, own.phases], 1),
    )


def _fastest(paths: list[Path]) -> Tensor:
    """Returns the maximum speed of anything in each scene, ``(b,)``, in pixels per frame, mid-window."""
    half = torch.full((len(paths[0].velocity),), 0.5, device=paths[0].velocity.device)
    speeds = [(path.pose(half) - path.pose(-half))[:, :2].norm(dim=1) for path in paths]
    return torch.stack(speeds).max(0).values


def _bytes(values: Tensor) -> Tensor:
    """Converts values in [0, 1] to uint8."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)
