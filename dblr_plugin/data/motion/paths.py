"""Paths of cameras and objects through the frames of a window: position, rotation and zoom at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

__all__ = ['Path', 'random_path', 'uniform']

_WAVES = 3  # sine waves that make up a hand's tremor


def uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draws float32 values between two bounds, on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


@dataclass(frozen=True)
class Path:
    """Smooth motion of ``b`` cameras or objects; every pose is zero at time 0, the middle of the window.

    Attributes:
        velocity: ``(b, 4)``: x and y in pixels a frame, rotation in radians a frame, log of the zoom a frame.
        tremor: ``(b, waves, 4)``: amplitudes of sine waves in the same units.
        rates: ``(b, waves, 4)``: their angular frequencies, in radians a frame.
        phases: ``(b, waves, 4)``: their phases, in radians.
    """

    velocity: Tensor
    tremor: Tensor
    rates: Tensor
    phases: Tensor

    def pose(self, times: Tensor) -> Tensor:
        """Poses at some times.

        Args:
            times: ``(..., b)``, in frames from the middle of the window.

        Returns:
            ``(..., b, 4)``: x, y, rotation, log of the zoom.
        """
        at = times[..., None, None]
        waves = self.tremor * ((self.rates * at + self.phases).sin() - self.phases.sin())
        return self.velocity * times[..., None] + waves.sum(-2)

    def select(self, moves: Tensor) -> Path:
        """The same paths, at rest where ``moves``, ``(b,)``, is 0."""
        return Path(self.velocity * moves[:, None], self.tremor * moves[:, None, None], self.rates, self.phases)


def random_path(batch: int, speed: float, generator: Generator) -> Path:
    """Draws the paths of cameras or objects that move up to ``speed`` pixels a frame.

    A third of the paths are straight, a third a hand's tremor, and in a third both share the speed. A third turn, by up
    to 1.5 degrees a frame, and a third zoom, by up to 2 percent a frame; both less where the speed is below 10 pixels.

    Args:
        batch: How many.
        speed: The most that the constant part and the tremor together move, in pixels a frame.
        generator: What they are drawn from; its device is that of the result.
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
    # a sine of amplitude a and rate r moves a * r a frame at most; several hardly ever do so at once
    tremor = (pace * (1 - share))[:, None] / rates / math.sqrt(_WAVES)
    tremor = tremor * uniform(0.5, 1.5, (batch, _WAVES, 4), generator)
    in_plane = torch.tensor([1.0, 1.0, 0.002, 0.0], device=generator.device)  # tremor turns little and never zooms
    return Path(torch.cat([shift, turn, zoom], 1), tremor * in_plane, rates, phases)
