"""Restores the frames of a window with any network, as fast as a device can."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.colour import replace_y, to_network_colour
from dblr_plugin.restore.backends import build_forward
from dblr_plugin.restore.int8_forward import Int8Forward
from dblr_plugin.restore.tiles import TiledForward, halo_of

__all__ = ['FrameRestorer', 'build_restorer']


def build_restorer(
    net: nn.Module,
    traits: NetworkTraits,
    device: torch.device,
    *,
    backend: str = 'auto',
    precision: str = 'auto',
    tile: int = 0,
    size_multiple: int = 1,
    frames: int = 1,
) -> FrameRestorer:
    """A restorer that runs a copy of a network as fast as this device can.

    Args:
        net: The network; it is not changed.
        traits: What it takes and gives.
        device: Where it is to run.
        backend: ``auto``, ``torch``, ``compile`` or ``openvino``; see :func:`build_forward`.
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        tile: Side of the squares that a frame is cut into, in pixels, which changes the memory needed and, but for
            networks like EDVR that look at no fixed distance, not the result; for 0 see :class:`TiledForward`.
        size_multiple: What the frames' sides are padded to a multiple of, for networks that need it.
        frames: How many there will be, roughly, by which ``auto`` judges whether compiling pays.
    """
    # networks of ours pad frames themselves, but tiles have to begin where a frame may
    size_multiple = math.lcm(size_multiple, getattr(net, 'size_multiple', 1))
    forward = build_forward(net, device, backend, precision, frames)
    tiled = TiledForward(forward, halo_of(net), tile, size_multiple)
    return FrameRestorer(tiled, traits, size_multiple, forward if isinstance(forward, Int8Forward) else None)


class FrameRestorer:
    """Restores one frame of RGB windows, or all, as the network's traits say.

    A one-channel network restores Y, and the blurry frame keeps its Cb and Cr (the paper).

    Args:
        net: ``(b, t, channels, h, w)`` to ``(b, channels, h, w)``, or to as many frames as it was given.
        traits: What it takes and gives.
        size_multiple: The network needs h and w to be multiples of this; frames are padded and cut back.
        int8: What in ``net`` is to be calibrated.
    """

    def __init__(
        self,
        net: Callable[[Tensor], Tensor],
        traits: NetworkTraits,
        size_multiple: int = 1,
        int8: Int8Forward | None = None,
    ) -> None:
        self.net = net
        self.traits = traits
        self.size_multiple = size_multiple
        self.int8 = int8

    @property
    def needs_calibration(self) -> bool:
        """Whether int8 waits for windows to be calibrated on; without them the first one to restore has to do."""
        return self.int8 is not None and not self.int8.calibrated

    def calibrate(self, windows: Iterable[Tensor]) -> None:
        """Calibrates int8 on windows that have the network's colour, ``(1, t, channels, h, w)``."""
        if self.int8 is not None:
            self.int8.calibrate(map(self.padded, windows))

    def __call__(self, window: Tensor) -> Tensor:
        """``(b, t, 3, h, w)`` RGB in [0, 1] to ``(b, 3, h, w)`` or ``(b, t, 3, h, w)``, not clipped."""
        restores = self.traits.restores
        blurry = window if restores == 'all' else window[:, restores]
        return self.restore(to_network_colour(window, self.traits.channels), blurry)

    @torch.no_grad()
    def restore(self, window: Tensor, blurry: Tensor) -> Tensor:
        """Restores a window that has the network's colour already.

        Args:
            window: ``(b, t, channels, h, w)``.
            blurry: The frames to restore, RGB in [0, 1]: ``(b, 3, h, w)``, or ``(b, t, 3, h, w)`` for all.

        Returns:
            The same shape as ``blurry``, not clipped.
        """
        h, w = window.shape[-2:]
        out = self.net(self.padded(window))[..., :h, :w].to(blurry.dtype)
        return replace_y(blurry, out) if self.traits.channels == 1 else out

    def padded(self, window: Tensor) -> Tensor:
        """A window with sides that are multiples of ``size_multiple``."""
        h, w = window.shape[-2:]
        pad_h, pad_w = -h % self.size_multiple, -w % self.size_multiple
        if not (pad_h or pad_w):
            return window
        return F.pad(window, (0, pad_w, 0, pad_h, 0, 0), mode='replicate')
