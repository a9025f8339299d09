"""Restores a stream of frames with any network that takes windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.data.cuts import thumbnail
from dblr_plugin.data.flow import align
from dblr_plugin.data.frames import unit_range
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.frame_restorer import build_restorer, to_network_colour
from dblr_plugin.restore.loading import load_network
from dblr_plugin.restore.windows import StreamFrame, lead_of, windows

__all__ = ['VideoRestorer']


@dataclass(frozen=True)
class BufferedFrame:
    """A frame on the device: as the network takes it, and as it came."""

    planes: Tensor  # (1, c, h, w), float32
    pixels: Tensor  # (h, w, 3), RGB


class VideoRestorer:
    """Restores videos, holding a few frames at a time.

    >>> restorer = VideoRestorer.from_weights('experiments/DBLRNet/models/net_g_latest.pth')  # doctest: +SKIP
    >>> for sharp in restorer.restore(frames): ...  # doctest: +SKIP

    Args:
        net: The network.
        network: Its options, as ``network_g`` of an option file.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        settings: ``backend``, ``precision``, ``tile``, ``size_multiple`` and ``frames``, as for :func:`build_restorer`.
    """

    def __init__(self, net: nn.Module, network: dict[str, Any], device: str = 'auto', **settings: Any) -> None:
        self.device = _device(device)
        self.traits = NetworkTraits.of(network)
        self.restorer = build_restorer(net, network, self.device, **settings)

    @property
    def lead(self) -> int:
        """How many frames before one have to be given too, to restore it and all after it as in the whole film."""
        return lead_of(self.traits.num_frame, self.traits.causal)

    @classmethod
    def from_weights(
        cls, weights: str | Path | None = None, option_file: str | Path | None = None, **settings: Any
    ) -> VideoRestorer:
        """Builds the network that a checkpoint belongs to; see :func:`load_network`.

        Args:
            weights: A ``.pth`` or ``.safetensors`` file; None for the weights that come with the package.
            option_file: Where ``network_g`` stands, for weights that do not say of which network they are.
            settings: As for the class.

        Raises:
            DBLRError: If the file cannot be read, or is of another network, or does not say of which.
        """
        loaded = load_network(weights, option_file)
        return cls(loaded.net, loaded.options, **{'size_multiple': loaded.pad_multiple, **settings})

    def restore(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Restores frames, in order and as many as there are.

        Args:
            frames: RGB ``(h, w, 3)``, all of one size; uint8, or uint16 over its full range.

        Yields:
            Each restored, of the same type.
        """
        for window in self._windows(frames):
            blurry = window[self.traits.restored].pixels
            restored = self.restorer.restore(
                torch.stack([held.planes for held in window], dim=1), _planes(blurry).unsqueeze(0)
            )
            yield _pixels(restored[0], blurry.dtype)

    def _windows(self, frames: Iterable[np.ndarray]) -> Iterator[list[BufferedFrame]]:
        """Each frame is brought to the device once; aligned ones differ from window to window."""
        if not self.traits.flow:
            shown = (StreamFrame(self._hold(frame), thumbnail(_eight_bits(frame))) for frame in frames)
            yield from windows(shown, self.traits.num_frame, self.traits.causal)
            return
        shown = (StreamFrame(frame, thumbnail(_eight_bits(frame))) for frame in frames)
        for window in windows(shown, self.traits.num_frame, self.traits.causal):
            yield [self._hold(frame) for frame in align(window, self.traits.restored)]

    def _hold(self, frame: np.ndarray) -> BufferedFrame:
        # torch has hardly any operations for uint16
        wide = frame.astype(np.int32) if frame.dtype == np.uint16 else frame
        pixels = torch.from_numpy(np.ascontiguousarray(wide)).to(self.device, non_blocking=True)
        return BufferedFrame(to_network_colour(_planes(pixels).unsqueeze(0), self.traits.channels), pixels)


def _device(name: str) -> torch.device:
    """The device of that name; raises DBLRError if it is not there."""
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        found = ', '.join(['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))])
        raise DBLRError(f"there is no device '{name}'; found: {found}") from error
    return device


def _eight_bits(frame: np.ndarray) -> np.ndarray:
    return (frame >> 8).astype(np.uint8) if frame.dtype == np.uint16 else frame


def _planes(pixels: Tensor) -> Tensor:
    """RGB ``(h, w, 3)`` as float32 ``(3, h, w)`` in [0, 1], on its device."""
    planes = pixels.permute(2, 0, 1)
    if pixels.dtype == torch.uint8 and pixels.device.type == 'cpu':
        return unit_range([planes.contiguous().numpy()])[0]
    return planes.float() / (255 if pixels.dtype == torch.uint8 else 65535)


def _pixels(planes: Tensor, dtype: torch.dtype) -> np.ndarray:
    """The inverse of :func:`_planes`, rounded, on the CPU."""
    top = 255 if dtype == torch.uint8 else 65535
    values = planes.clamp(0, 1).mul_(top).round_().permute(1, 2, 0)
    if dtype == torch.uint8:
        return values.to(torch.uint8).contiguous().cpu().numpy()
    return values.to(torch.int32).contiguous().cpu().numpy().astype(np.uint16)
