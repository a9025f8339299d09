"""The scene recorded by a moving camera: a background with depth, and moving objects in front of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = ['Layer', 'Path', 'pixel_line', 'random_depth', 'random_masks', 'random_path', 'render', 'uniform']

_WAVES = 3  # sine waves that make up hand tremor


def uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draws float32 values between two bounds, on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


@dataclass(frozen=True)
class Path:
    """Smooth motion of ``b`` cameras or objects; every pose is zero at time 0, the middle of the window."""

    velocity: Tensor  # (b, 4): x and y in pixels, rotation in radians, log of the zoom, per frame
    tremor: Tensor  # (b, waves, 4): amplitudes of sine waves, in pixels, radians and log of the zoom
    rates: Tensor  # (b, waves, 4): their angular frequencies, in radians per frame
    phases: Tensor  # (b, waves, 4): their phases, in radians

    def pose(self, times: Tensor) -> Tensor:
        """Returns the poses ``(..., b, 4)``, x, y, rotation, log of the zoom, at ``times`` ``(..., b)``, in frames."""
        at = times[..., None, None]
        waves = self.tremor * ((self.rates * at + self.phases).sin() - self.phases.sin())
        return self.velocity * times[..., None] + waves.sum(-2)

    def select(self, moves: Tensor) -> Path:
        """Returns the same paths, but at rest where ``moves``, ``(b,)``, is 0."""
        return Path(self.velocity * moves[:, None], self.tremor * moves[:, None, None], self.rates, self.phases)


def random_path(batch: int, speed: float, generator: Generator) -> Path:
    """Draws random paths of cameras or objects that move up to ``speed`` pixels per frame.

    A third of the paths are straight, a third are hand tremor, and a third mix both. A third rotate, by up to 1.5
    degrees per frame, and a third zoom, by up to 2 percent per frame; both less if ``speed`` is below 10 pixels.

    ``speed`` is the maximum of the constant motion and tremor together. The result is on the generator's device.
    """
    share = uniform(-1, 2, (batch, 1), generator).clamp(0, 1)  # of the constant motion
    pace = speed * uniform(0.15, 1, (batch, 1), generator)
    direction = uniform(0, 2 * math.pi, (batch, 1), generator)
    shift = pace * share * torch.cat([direction.cos(), direction.sin()], 1)
    spread = min(1.0, speed / 10)
    turn, zoom = (
        uniform(-most, most, (batch, 1), generator) * spread * (uniform(0, 1, (batch, 1), generator) < 1 / 3)
        for most in (math.radians(1.5), 0.02)
    )
    rates = 2 * math.pi * uniform(0.08, 0.7, (batch, _WAVES, 4), generator)
    phases = uniform(0, 2 * math.pi, (batch, _WAVES, 4), generator)
    # a sine of amplitude a and rate r moves at most a * r per frame; several rarely peak at the same time
    tremor = (pace * (1 - share))[:, None] / rates / math.sqrt(_WAVES)
    tremor = tremor * uniform(0.5, 1.5, (batch, _WAVES, 4), generator)
    in_plane = torch.tensor([1.0, 1.0, 0.002, 0.0], device=generator.device)  # tremor rotates little and never zooms
    return Path(torch.cat([shift, turn, zoom], 1), tremor * in_plane, rates, phases)


_FEW_MOMENTS = 5  # with fewer moments, each is interpolated


@dataclass(frozen=True)
class Layer:
    """A textured plane, one for each of ``b`` scenes.

    Attributes:
        texture: ``(b, c, th, tw)``: linear light; for layers that are not opaque ``(b, c + 1, th, tw)``: linear light
            times opacity, and opacity in [0, 1].
        step: ``(b,)``: texels per pixel.
        centre: ``(b, 2)``: position of its centre at time 0, x and y in pixels from the window's centre.
        path: Its motion relative to the camera.
        depth: ``(b, 1, h, w)``: factor for the path's shift at each pixel; None means 1 everywhere.
        is_opaque: Whether it covers everything behind it, even beyond the texture's border.
    """

    texture: Tensor
    step: Tensor
    centre: Tensor
    path: Path
    depth: Tensor | None = None
    is_opaque: bool = False

    def views(self, times: Tensor, line: Tensor) -> View:
        """Returns which part of the layer the camera sees at each of the given times.

        Args:
            times: ``(n, b)``, in frames from the middle of the window.
            line: See :func:`pixel_line`.
        """
        pose = self.path.pose(times)
        texels = self.texture.new_tensor(self.texture.shape[:1:-1])  # width, height
        scale = self.step * pose[..., 3].exp()
        cos, sin = scale * pose[..., 2].cos(), scale * pose[..., 2].sin()
        along, across = torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)
        shift = self.step[:, None] * pose[..., :2]
        start = -along * self.centre[:, :1] - across * self.centre[:, 1:]
        if self.depth is None:
            start = start + shift
        # grid_sample's coordinates range from -1 to 1
        along, across, start, shift = (2 / texels * value for value in (along, across, start, shift))
        return View(
            rows=(along[..., None] * line)[..., None, :],
            columns=(across[..., None] * line + start[..., None])[..., None],
            shift=shift[..., None, None],
            texel=2 / texels,
        )

    def seen(self, view: View, moment: int, dither: list[float] | None) -> Tensor:
        """Returns the layer as the camera sees it.

        Args:
            view: From :meth:`views`.
            moment: Index of one of its times.
            dither: Offset in texels, x and y, at which each pixel samples the nearest texel; None interpolates between
                texels. Over many moments, both have the same average, and nearest is much faster.

        Returns:
            ``(b, c, h, w)`` light of an opaque layer, else ``(b, c + 1, h, w)`` light times opacity, and opacity.
        """
        columns = view.columns[moment]
        if dither is not None:
            columns = columns + (view.texel * view.texel.new_tensor(dither))[:, None, None]
        places = view.rows[moment] + columns
        if self.depth is not None:
            places.addcmul_(self.depth, view.shift[moment])
        mode = 'bilinear' if dither is None else 'nearest'
        padding = 'border' if self.is_opaque else 'zeros'
        places = places.permute(0, 2, 3, 1)
        return F.grid_sample(self.texture, places, mode=mode, padding_mode=padding, align_corners=False)


@dataclass(frozen=True)
class View:
    """Texture coordinates of a layer at ``n`` times, in the units of ``grid_sample``: rows + columns + shift."""

    rows: Tensor  # (n, b, 2, 1, w): x and y along the pixels of a row
    columns: Tensor  # (n, b, 2, h, 1): the same down a column, including the layer's position
    shift: Tensor  # (n, b, 2, 1, 1): offset at a depth of 1, for layers that have depths
    texel: Tensor  # (2,): size of a texel


def render(layers: list[Layer], times: Tensor, line: Tensor) -> Tensor:
    """Renders the mean light that falls on the sensor.

    Args:
        layers: From back to front; the first is opaque.
        times: ``(n, b)``: the moments to average for each scene.
        line: See :func:`pixel_line`.

    Returns:
        ``(b, c, h, w)`` linear light.
    """
    views = [layer.views(times, line) for layer in layers]
    total = times.new_zeros(())
    for moment, dither in enumerate(_dithers(len(times))):
        light = layers[0].seen(views[0], moment, dither)
        for layer, view in zip(layers[1:], views[1:], strict=True):
            front = layer.seen(view, moment, dither)
            light = torch.addcmul(light + front[:, :-1], light, front[:, -1:], value=-1)
        total = total + light
    return total / len(times)


def _dithers(count: int) -> list[list[float]] | list[None]:
    """Returns a dither for each moment: points that evenly cover a square of one texel (Roberts' R2, 2018).

    Their mean is its middle: otherwise a blurry frame would be shifted against the sharp one.
    """
    if count < _FEW_MOMENTS:
        return [None] * count
    points = torch.arange(count)[:, None] * torch.tensor([0.7548776662, 0.5698402910]) % 1
    return (points - points.mean(0)).tolist()


def pixel_line(size: int, device: torch.device) -> Tensor:
    """Returns the pixel centres along either axis, ``(size,)``, in pixels from the window's centre."""
    return torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2


def random_depth(batch: int, size: int, generator: Generator) -> Tensor:
    """Draws smooth factors around 1, ``(b, 1, size, size)``: near objects shift more than far ones (parallax)."""
    coarse = torch.randn((batch, 1, 3, 3), generator=generator, device=generator.device)
    smooth = F.interpolate(coarse, size=(size, size), mode='bicubic', align_corners=True)
    return (1 + 0.3 * uniform(0, 1, (batch, 1, 1, 1), generator) * smooth).clamp(0.2, 2)


def random_masks(batch: int, size: int, generator: Generator) -> Tensor:
    """Draws the opacity of random objects, ``(b, 1, size, size)``: blobs and bars, with edges 1 or 2 pixels wide."""
    line = torch.linspace(-1, 1, size, device=generator.device)
    y, x = line[:, None].expand(size, size), line.expand(size, size)
    angle = uniform(0, 2 * torch.pi, (batch, 1, 1), generator)
    long, wide = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    width = uniform(0.04, 0.8, (batch, 1, 1), generator)
    bar = 1 - ((long.abs() / 0.8) ** 6 + (wide.abs() / width) ** 6) ** (1 / 6)
    coarse = torch.randn((batch, 1, 6, 6), generator=generator, device=generator.device)
    noise = F.interpolate(coarse, size=(size, size), mode='bicubic', align_corners=True)[:, 0]
    blob = 0.5 + 0.35 * noise - (x**2 + y**2)
    inside = torch.where(uniform(0, 1, (batch, 1, 1), generator) < 0.4, bar * width, blob * 0.5)
    border = (1 - torch.maximum(x.abs(), y.abs())) * 4  # keeps objects off the texture's border
    return (torch.minimum(inside, border) * size / 3).clamp(0, 1)[:, None]
