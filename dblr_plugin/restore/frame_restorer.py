"""Restores the frames of a window with any network, as fast as a device can."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.colour import replace_y, to_network_colour
from dblr_plugin.restore.backends import Forward, build_forward, is_out_of_memory
from dblr_plugin.restore.openvino_forward import Int8Forward

__all__ = ['INEXACT_RADIUS', 'SMALLEST_TILE', 'FrameRestorer', 'TiledForward', 'build_restorer', 'halo_of']

#: Pixels of halo for networks that look farther, or at no fixed distance: tiles then come close to the whole frame.
INEXACT_RADIUS = 64
SMALLEST_TILE = 32
_LARGEST_RADIUS = 255  # above it tiles would be as large as most frames

# On CPUs memory that runs out is no error but the end of the process, so large frames are tiled from the start where a
# narrow halo makes that cheap. The paper's network at 1280x720 then takes a fifth of plain PyTorch's memory
# (scripts/speed/memory_720p.py) for a tenth more time.
_LARGE_FRAME = 2**19  # pixels
_LARGE_FRAMES_TILE = 640
_NARROW_HALO = 40


def halo_of(net: nn.Module) -> int:
    """How many pixels around a tile a network has to see: its ``receptive_radius``, where it states one.

    That is how far beyond a block of pixels, aligned to its ``size_multiple``, the block's result depends on the input.
    """
    radius = getattr(net, 'receptive_radius', None)
    return INEXACT_RADIUS if radius is None or radius > _LARGEST_RADIUS else radius


class TiledForward:
    """Runs a network on overlapping tiles. All have the same size, so that compiled networks are compiled once.

    No tile reaches beyond the frame, so the network's own padding acts at the frame's border and nowhere else.

    Args:
        forward: ``(1, t, c, h, w)`` to ``(1, c, h, w)``.
        halo: Pixels around a tile that its result depends on; see :func:`halo_of`.
        tile: Pixels of a tile's side, without halo; 0 for whole frames, but for large ones on CPUs where tiles cost
            little. Halved whenever memory runs out.
        multiple: Frames, and so tiles and where they begin, are multiples of it.
    """

    def __init__(self, forward: Forward, halo: int, tile: int = 0, multiple: int = 1) -> None:
        self.forward = forward
        self.halo = _round_up(halo, multiple)
        self.tile = _round_up(tile, multiple)
        self.multiple = multiple
        self._warned = False

    def __call__(self, window: Tensor) -> Tensor:
        """``(1, t, c, h, w)`` to ``(1, c, h, w)``.

        Raises:
            ValueError: h or w is no multiple of ``multiple``.
            RuntimeError, MemoryError: Memory does not suffice for the smallest tile either.
        """
        if window.shape[-2] % self.multiple or window.shape[-1] % self.multiple:
            raise ValueError(f'{tuple(window.shape)}: height and width must be multiples of {self.multiple}')
        while True:
            try:
                return self._restore(window)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._halve(window):
                    raise
            # here, and not in the handler, the failed attempt's tensors are free
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _tile_of(self, window: Tensor) -> int:
        """The side of a window's tiles; that of the window where it is taken as a whole."""
        h, w = window.shape[-2:]
        is_cheap = window.device.type == 'cpu' and self.halo <= _NARROW_HALO
        default = _LARGE_FRAMES_TILE if is_cheap and h * w > _LARGE_FRAME else max(h, w)
        return min(self.tile or default, max(h, w))

    def _halve(self, window: Tensor) -> bool:
        """Makes tiles smaller; False where they are the smallest."""
        before, longest = self._tile_of(window), max(window.shape[-2:])
        self.tile = _round_up(max(before // 2, SMALLEST_TILE), self.multiple)
        if self.tile < before and not self._warned:
            self._warned = True
            logging.getLogger('dblr_plugin').warning(
                'Memory does not suffice for %s; frames are restored in smaller tiles.',
                'whole frames' if before == longest else f'tiles of {before} pixels',
            )
        return self.tile < before

    def _restore(self, window: Tensor) -> Tensor:
        h, w = window.shape[-2:]
        rows, columns = (_spans(size, self._tile_of(window), self.halo, self.multiple) for size in (h, w))
        if len(rows) == len(columns) == 1:
            return self.forward(window)
        restored = None
        for row in rows:
            for column in columns:
                piece = self.forward(window[..., row.source, column.source])
                if restored is None:
                    restored = piece.new_empty(*piece.shape[:-2], h, w)
                restored[..., row.target, column.target] = piece[..., row.inner, column.inner]
        assert restored is not None  # there are several tiles
        return restored


@dataclass(frozen=True)
class _Span:
    """One tile along one axis.

    Attributes:
        source: What the network sees of the frame.
        target: What of the frame is taken from its result.
        inner: The same within the result.
    """

    source: slice
    target: slice
    inner: slice


def _spans(size: int, tile: int, halo: int, multiple: int) -> list[_Span]:
    """As few tiles as cover ``size`` pixels, as small as so many can be: each sees equally much of the frame.

    Those at the ends need a halo on one side only, and so give more pixels than those between them.
    """
    between = size - 2 * halo
    if between <= tile:
        return [_Span(slice(0, size), slice(0, size), slice(0, size))]
    step = _round_up(-(-between // -(-between // tile)), multiple)
    firsts = range(0, between, step)
    seen = step + 2 * halo
    spans = []
    for first in firsts:
        start = first + halo if first else 0
        stop = first + step + halo if first < firsts[-1] else size
        first = min(first, size - seen)
        spans.append(_Span(slice(first, first + seen), slice(start, stop), slice(start - first, stop - first)))
    return spans


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


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
        int8: The part of ``net`` that has to be calibrated.
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
