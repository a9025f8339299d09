"""Restores the frames of a window with any network, as fast as the device allows."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.traits import NetworkTraits, pad_multiple, round_up
from dblr_plugin.colour import replace_y, to_network_colour
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.backends import Forward, build_forward, is_out_of_memory
from dblr_plugin.restore.openvino_forward import Int8Forward

__all__ = [
    'INEXACT_RADIUS', 'SMALLEST_TILE', 'FrameRestorer', 'SelfEnsemble', 'TiledForward', 'build_restorer', 'halo_of',
]  # fmt: skip

_log = logging.getLogger(__name__)

#: Halo in pixels for networks with a very large or unknown receptive field: tiles then approximate the whole frame.
INEXACT_RADIUS = 64
SMALLEST_TILE = 32
_LARGEST_RADIUS = 255  # with more, tiles would be as large as most frames

# Running out of memory on a CPU kills the process instead of raising an error, so large frames are tiled from the
# start, the sooner the narrower the halo: frames of more pixels than the first number, with halos up to the third, in
# tiles of the second. The paper's network at 1280x720 then needs a fifth of plain PyTorch's memory
# (scripts/speed/memory_720p.py) and a tenth more time; balanced, for three frames of 3840x2160, 2.9 GB instead of
# 5.9, and a sixth more.
_LARGE_FRAMES = ((2**19, 640, 40), (2**21, 1280, _LARGEST_RADIUS))


def halo_of(net: nn.Module) -> int:
    """Returns how many pixels of context a tile needs: the network's ``receptive_radius``, if it has one.

    This is how far beyond a block of pixels, aligned to its ``size_multiple``, the block's result depends on the input.
    """
    radius = getattr(net, 'receptive_radius', None)
    return INEXACT_RADIUS if radius is None or radius > _LARGEST_RADIUS else radius


class TiledForward:
    """Runs a network on overlapping tiles, all of one size, so that networks are compiled only once.

    No tile extends beyond the frame, so the network's own padding takes effect only at the frame's border.

    Args:
        forward: ``(1, t, c, h, w)`` to ``(1, c, h, w)``.
        halo: Pixels around a tile that its result depends on; see :func:`halo_of`.
        tile: Side of a tile in pixels, without halo; 0 for whole frames, except large ones on CPUs if tiles are exact.
            Halved whenever memory runs out.
        multiple: Frame sizes, and so tile sizes and offsets, are multiples of this.
        exact: Whether the halo is all that a tile's result depends on.
    """

    def __init__(self, forward: Forward, halo: int, tile: int = 0, multiple: int = 1, exact: bool = True) -> None:
        self.forward = forward
        self.halo = round_up(halo, multiple)
        self.exact = exact
        self.tile = round_up(tile, multiple)
        self.multiple = multiple
        self._warned = False

    def __call__(self, window: Tensor) -> Tensor:
        """``(1, t, c, h, w)`` to ``(1, c, h, w)``.

        Raises:
            ValueError: If h or w is not a multiple of ``multiple``.
            RuntimeError, MemoryError: If memory runs out even with the smallest tile, or the network fails otherwise.
        """
        if window.shape[-2] % self.multiple or window.shape[-1] % self.multiple:
            raise ValueError(f'{tuple(window.shape)}: height and width must be multiples of {self.multiple}')
        while True:
            try:
                return self._restore(window)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._halve(window):
                    raise
            # outside the handler, where the failed attempt's tensors have been freed
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _tile_of(self, window: Tensor) -> int:
        """Returns the tile side for a window; the window's longer side if it is not tiled."""
        h, w = window.shape[-2:]
        if self.tile or window.device.type != 'cpu' or not self.exact:
            return min(self.tile or max(h, w), max(h, w))
        return next((side for pixels, side, halo in _LARGE_FRAMES if h * w > pixels and self.halo <= halo), max(h, w))

    def _halve(self, window: Tensor) -> bool:
        """Halves the tile size; returns False if it is already the smallest."""
        before, longest = self._tile_of(window), max(window.shape[-2:])
        self.tile = round_up(max(before // 2, SMALLEST_TILE), self.multiple)
        if self.tile < before and not self._warned:
            self._warned = True
            _log.warning(
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
        for row, column in itertools.product(rows, columns):
            tile = window[..., row.source, column.source]
            piece = self.forward(tile)
            _check_shape(piece, (*piece.shape[:-2], *tile.shape[-2:]))
            if restored is None:
                restored = piece.new_empty(*piece.shape[:-2], h, w)
            restored[..., row.target, column.target] = piece[..., row.inner, column.inner]
        assert restored is not None  # as there are several tiles
        return restored


class SelfEnsemble:
    """Averages a network's results for a window and its flips, which keep its shape: 0.1 dB better, at four passes.

    EDVR's authors average the same four. Two of them are also reversed in time where that leaves the restored frame in
    its place, which helps a little more (docs/weights.md).

    Args:
        forward: ``(1, t, c, h, w)`` to ``(1, c, h, w)`` or ``(1, t, c, h, w)``.
        reverse: Whether windows may be reversed.
    """

    def __init__(self, forward: Forward, reverse: bool) -> None:
        self.forward = forward
        self.reverse = reverse

    def __call__(self, window: Tensor) -> Tensor:
        """Maps a window as ``forward`` does; equal results are returned bit for bit."""
        plain, down = self._flipped(window), self._flipped(window, -2)
        across, around = (self._flipped(window, *axes, reverse=self.reverse) for axes in ((-1,), (-2, -1)))
        return ((plain + down) + (across + around)) / 4  # in pairs, as the sum of three may be rounded

    def _flipped(self, window: Tensor, *axes: int, reverse: bool = False) -> Tensor:
        time = (-4,) if reverse else ()
        restored = self.forward(window.flip((*axes, *time)))
        return restored.flip((*axes, *time) if restored.dim() == window.dim() else axes)


@dataclass(frozen=True)
class _Span:
    """One tile along one axis."""

    source: slice  # the part of the frame that the network sees
    target: slice  # the part of the frame taken from the network's result
    inner: slice  # the same part within the result


def _spans(size: int, tile: int, halo: int, multiple: int) -> list[_Span]:
    """Covers ``size`` pixels with the fewest tiles, each as small as possible, and all with inputs of equal size.

    The first and last tile need a halo on one side only, and so contribute more pixels than the others.
    """
    between = size - 2 * halo
    if between <= tile:
        return [_Span(slice(0, size), slice(0, size), slice(0, size))]
    step = round_up(-(-between // -(-between // tile)), multiple)
    firsts = range(0, between, step)
    seen = step + 2 * halo
    spans = []
    for first in firsts:
        start = first + halo if first else 0
        stop = first + step + halo if first < firsts[-1] else size
        first = min(first, size - seen)
        spans.append(_Span(slice(first, first + seen), slice(start, stop), slice(start - first, stop - first)))
    return spans


def _check_shape(restored: Tensor, expected: tuple[int, ...]) -> None:
    if restored.shape != expected:
        raise DBLRError(
            f'the network returns {tuple(restored.shape)}, not {expected}; use one that restores frames at their size: '
            "one of each window, or all if its class sets restores = 'all'"
        )


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
    self_ensemble: bool = False,
) -> FrameRestorer:
    """Builds a restorer that runs a copy of a network as fast as the device allows.

    Args:
        net: The network; it is not changed.
        traits: Its inputs and outputs.
        device, backend, precision, frames: See :func:`build_forward`.
        tile: Side of the square tiles that a frame is split into, in pixels. Affects memory use, but not the result,
            except for networks without a fixed receptive field, such as EDVR; for 0 see :class:`TiledForward`.
        size_multiple: Frames are padded to a multiple of this, for networks that need it.
        self_ensemble: Whether the results of four flips are averaged, see :class:`SelfEnsemble`.
    """
    # our networks pad frames themselves, but tiles must start at multiples
    size_multiple = math.lcm(pad_multiple(type(net).__name__, size_multiple), getattr(net, 'size_multiple', 1))
    forward = build_forward(net, device, backend, precision, frames)
    halo = halo_of(net)
    run: Forward = TiledForward(forward, halo, tile, size_multiple, halo == getattr(net, 'receptive_radius', None))
    if self_ensemble:
        run = SelfEnsemble(run, reverse=not traits.causal)
    return FrameRestorer(run, traits, size_multiple, forward if isinstance(forward, Int8Forward) else None)


class FrameRestorer:
    """Restores one frame of RGB windows, or all, according to the network's traits.

    A one-channel network restores Y; Cb and Cr are those of the blurry frame, as in the paper.

    Args:
        net: ``(b, t, channels, h, w)`` to ``(b, channels, h, w)``, or to ``(b, t, channels, h, w)``.
        traits: Its inputs and outputs.
        size_multiple: The network needs h and w to be multiples of this; frames are padded and cropped back.
        int8: The part of ``net`` that must be calibrated.
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
        """Whether int8 is not calibrated yet; without :meth:`calibrate`, the first window restored is used."""
        return self.int8 is not None and not self.int8.calibrated

    def calibrate(self, windows: Iterable[Tensor]) -> None:
        """Calibrates int8 on windows in the network's colour format, ``(1, t, channels, h, w)``."""
        if self.int8 is not None:
            self.int8.calibrate(map(self.padded, windows))

    def __call__(self, window: Tensor) -> Tensor:
        """``(b, t, 3, h, w)`` RGB in [0, 1] to ``(b, 3, h, w)`` or ``(b, t, 3, h, w)``, not clipped."""
        restores = self.traits.restores
        blurry = window if restores == 'all' else window[:, restores]
        return self.restore(to_network_colour(window, self.traits.channels), blurry)

    @torch.no_grad()
    def restore(self, window: Tensor, blurry: Tensor) -> Tensor:
        """Restores a window that is already in the network's colour format.

        Args:
            window: ``(b, t, channels, h, w)``.
            blurry: The frames to restore, RGB in [0, 1]: ``(b, 3, h, w)``, or ``(b, t, 3, h, w)`` for all.

        Returns:
            The same shape as ``blurry``, not clipped.

        Raises:
            DBLRError: If the network returns another shape, as networks for super-resolution do.
        """
        h, w = window.shape[-2:]
        padded = self.padded(window)
        out = self.net(padded)
        _check_shape(out, (*blurry.shape[:-3], *padded.shape[2:]))
        out = out[..., :h, :w].to(blurry.dtype)
        return replace_y(blurry, out) if self.traits.channels == 1 else out

    def padded(self, window: Tensor) -> Tensor:
        """Pads a window's height and width to multiples of ``size_multiple``."""
        h, w = window.shape[-2:]
        pad_h, pad_w = -h % self.size_multiple, -w % self.size_multiple
        if not (pad_h or pad_w):
            return window
        return F.pad(window, (0, pad_w, 0, pad_h, 0, 0), mode='replicate')
