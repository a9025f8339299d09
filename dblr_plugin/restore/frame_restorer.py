"""Restores RGB windows with any video network: the one code path of validation, testing and video inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.colour import replace_y, rgb_to_y
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.backends import build_forward
from dblr_plugin.restore.tiles import TiledForward, receptive_radius

__all__ = ['FrameRestorer', 'build_restorer', 'to_network_colour']


def to_network_colour(frames: Tensor, num_in_ch: int) -> Tensor:
    """Pictures as the network takes them: Y for one channel, RGB for three.

    Args:
        frames: RGB ``(..., 3, h, w)``, or Y ``(..., 1, h, w)`` from a data set with ``y_only: true``.
        num_in_ch: The network's channels.

    Raises:
        DBLRError: Y cannot become RGB.
    """
    if frames.shape[-3] == 1:
        if num_in_ch != 1:
            raise DBLRError(
                f'the training set gives brightness alone (y_only: true), but network_g takes {num_in_ch} channels; '
                'remove y_only, or set num_in_ch: 1'
            )
        return frames
    return rgb_to_y(frames) if num_in_ch == 1 else frames


def build_restorer(
    net: nn.Module,
    network: Mapping[str, Any],
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
        network: Its options, as ``network_g`` of an option file.
        device: Where it is to run.
        backend: ``auto``, ``torch``, ``compile`` or ``openvino``; see :func:`build_forward`.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        tile: Side of the squares that a frame is cut into, in pixels, which changes the memory needed and, but for
            networks like EDVR that look at no fixed distance, not the result; for 0 see :class:`TiledForward`.
        size_multiple: What the frames' sides are padded to a multiple of, for networks that need it.
        frames: How many there will be, roughly, by which ``auto`` judges whether compiling pays.
    """
    traits = NetworkTraits.of(network)
    # networks of ours pad frames themselves, but tiles have to begin where a frame may
    size_multiple = math.lcm(size_multiple, getattr(net, 'size_multiple', 1))
    halo = receptive_radius(net, traits.channels, traits.num_frame, size_multiple)
    forward = TiledForward(build_forward(net, device, backend, precision, frames), halo, tile, size_multiple)
    return FrameRestorer(forward, traits.channels, size_multiple, traits.causal)


class FrameRestorer:
    """Restores one frame of RGB windows: the middle one, or the last of causal windows.

    A one-channel network restores Y, and the blurry frame keeps its Cb and Cr (the paper).

    Args:
        net: ``(b, t, num_in_ch, h, w)`` to ``(b, num_in_ch, h, w)``.
        num_in_ch: 1 (Y) or 3 (RGB).
        size_multiple: The network needs h and w to be multiples of this; frames are padded and cut back.
        causal: Whether the last frame of a window is restored.
    """

    def __init__(
        self, net: Callable[[Tensor], Tensor], num_in_ch: int, size_multiple: int = 1, causal: bool = False
    ) -> None:
        self.net = net
        self.num_in_ch = num_in_ch
        self.size_multiple = size_multiple
        self.causal = causal

    def __call__(self, window: Tensor) -> Tensor:
        """``(b, t, 3, h, w)`` RGB in [0, 1] to ``(b, 3, h, w)``, not clipped."""
        blurry = window[:, -1 if self.causal else window.shape[1] // 2]
        return self.restore(to_network_colour(window, self.num_in_ch), blurry)

    @torch.no_grad()
    def restore(self, window: Tensor, blurry: Tensor) -> Tensor:
        """Restores a window that has the network's colour already.

        Args:
            window: ``(b, t, num_in_ch, h, w)``.
            blurry: The frame to restore, RGB ``(b, 3, h, w)`` in [0, 1].

        Returns:
            ``(b, 3, h, w)``, not clipped.
        """
        h, w = window.shape[-2:]
        out = self.net(self._pad(window))[..., :h, :w].to(blurry.dtype)
        return replace_y(blurry, out) if self.num_in_ch == 1 else out

    def _pad(self, window: Tensor) -> Tensor:
        h, w = window.shape[-2:]
        pad_h, pad_w = -h % self.size_multiple, -w % self.size_multiple
        if not (pad_h or pad_w):
            return window
        return F.pad(window, (0, pad_w, 0, pad_h, 0, 0), mode='replicate')
