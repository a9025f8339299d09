"""Restores a stream of frames with any network that takes windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.archs import build_network
from torch import Tensor, nn

from dblr_plugin.data.cuts import thumbnail
from dblr_plugin.data.frames import unit_range
from dblr_plugin.errors import DBLRError
from dblr_plugin.inference.backends import build_forward
from dblr_plugin.inference.tiles import TiledForward, receptive_radius
from dblr_plugin.inference.windows import Shown, windows
from dblr_plugin.models.restorer import FrameRestorer, to_network_colour
from dblr_plugin.models.video_deblur_model import network_argument
from dblr_plugin.options import read_option_file
from dblr_plugin.training.checkpoint import load_weights, read_checkpoint

__all__ = ['VideoRestorer']

# what SimDeblur's weights are of, which say nothing of it
_SIMDEBLUR = {
    'type': 'DBLRNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 15, 'tail_conv': False,
}  # fmt: skip


@dataclass(frozen=True)
class _Held:
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
        backend: ``auto``, ``torch``, ``compile`` or ``openvino``; see :func:`build_forward`.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        tile: Side of the squares that a frame is cut into, in pixels, which changes the memory needed and, but for
            networks like EDVR that look at no fixed distance, not the result; 0 restores whole frames, unless memory
            runs out.
        size_multiple: What the frames' sides are padded to a multiple of, for networks that need it.
        frames: How many there will be, roughly, by which ``auto`` judges whether compiling pays.
    """

    def __init__(
        self,
        net: nn.Module,
        network: dict[str, Any],
        device: str = 'auto',
        backend: str = 'auto',
        precision: str = 'auto',
        tile: int = 0,
        size_multiple: int = 1,
        frames: int = 1,
    ) -> None:
        self.device = _device(device)
        self.num_in_ch = network_argument(network, 'num_in_ch', 3)
        self.num_frame = network_argument(network, 'num_frame', 5)
        self.causal = bool(network_argument(network, 'causal', False))
        net = net.eval().to(self.device)
        halo = receptive_radius(net, self.num_in_ch, self.num_frame, size_multiple)
        forward = build_forward(net, self.device, backend, precision, frames)
        forward = TiledForward(forward, halo, tile, size_multiple)
        self.restorer = FrameRestorer(forward, self.num_in_ch, size_multiple, self.causal)

    @classmethod
    def from_weights(cls, weights: str | Path, option_file: str | Path | None = None, **settings: Any) -> VideoRestorer:
        """Builds the network that a checkpoint belongs to; averaged weights are preferred.

        Args:
            weights: A ``.pth`` file. Those of this package say of which network they are.
            option_file: Where ``network_g`` stands, for weights that do not say; ``val.pad_multiple`` counts too.
            settings: As for the class.

        Raises:
            DBLRError: If the file cannot be read, or is of another network, or does not say of which.
        """
        if option_file is None:
            network = _network_of(weights)
        else:
            options = _read_options(option_file)
            network = options['network_g']
            settings = {'size_multiple': (options.get('val') or {}).get('pad_multiple', 1), **settings}
        try:
            net = build_network(network)
        except (KeyError, TypeError, ValueError) as error:
            raise DBLRError(f'{option_file or weights}: its network cannot be built ({error}): {network}') from error
        load_weights(net, weights, param_key='params_ema')
        return cls(net, network, **settings)

    def restore(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Restores frames, in order and as many as there are.

        Args:
            frames: RGB ``(h, w, 3)``, all of one size; uint8, or uint16 over its full range.

        Yields:
            Each restored, of the same type.
        """
        shown = (Shown(self._hold(frame), thumbnail(_eight_bits(frame))) for frame in frames)
        for window in windows(shown, self.num_frame, self.causal):
            blurry = window[-1 if self.causal else len(window) // 2].pixels
            restored = self.restorer.restore(
                torch.stack([held.planes for held in window], dim=1), _planes(blurry).unsqueeze(0)
            )
            yield _pixels(restored[0], blurry.dtype)

    def _hold(self, frame: np.ndarray) -> _Held:
        # torch has hardly any operations for uint16
        wide = frame.astype(np.int32) if frame.dtype == np.uint16 else frame
        pixels = torch.from_numpy(np.ascontiguousarray(wide)).to(self.device, non_blocking=True)
        return _Held(to_network_colour(_planes(pixels).unsqueeze(0), self.num_in_ch), pixels)


def _device(name: str) -> torch.device:
    """The device of that name; raises DBLRError if it is not there."""
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        found = ', '.join(['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))])
        raise DBLRError(f"there is no device '{name}'; found: {found}") from error
    return device


def _network_of(weights: str | Path) -> dict[str, Any]:
    content = read_checkpoint(weights)
    if isinstance(content.get('network'), dict):
        return content['network']
    bare = next((v for v in content.values() if isinstance(v, dict)), content)
    if any(str(key).removeprefix('module.').startswith('L_in.') for key in bare):
        return dict(_SIMDEBLUR)
    raise DBLRError(f'{weights}: does not say of which network it is; name the option file it was trained with (-opt)')


def _read_options(path: str | Path) -> dict[str, Any]:
    options = read_option_file(path).plain()
    if not isinstance(options, dict) or not isinstance(options.get('network_g'), dict):
        raise DBLRError(f'{path}: has no section network_g; name the option file the weights were trained with')
    return options


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
