"""Runs a network on videos and clips, frame by frame, for deblurring, validation, test and benchmark alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.colour import to_network_colour
from dblr_plugin.data.cuts import thumbnail
from dblr_plugin.data.flow import align
from dblr_plugin.data.windows import (
    StreamFrame,
    first_uses,
    gather,
    lead_of_shots,
    lead_of_windows,
    shots,
    spread,
    window_indices,
    windows,
)
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.frame_restorer import build_restorer
from dblr_plugin.restore.loading import load_network
from dblr_plugin.restore.openvino_forward import WINDOWS
from dblr_plugin.threads import prefetch
from dblr_plugin.video.frames import eight_bits

__all__ = ['VideoRestorer']

# of a stream, to calibrate int8 on by default
FIRST_FRAMES = 24


@dataclass(frozen=True)
class BufferedFrame:
    """A frame as received, and on the device."""

    source: np.ndarray  # (h, w, 3), RGB
    planes: Tensor  # (1, c, h, w), float32, the network's input
    pixels: Tensor  # (h, w, 3), RGB


class VideoRestorer:
    """Restores videos and clips, holding a few frames at a time; without flow, each frame is copied to the device once.

    Several calls of :meth:`restore` may run at once, in one thread or in several. Processes need one each, and must be
    started by ``spawn``: torch hangs in forks of a process that it has computed in.

    >>> restorer = VideoRestorer.from_weights('experiments/DBLRNet/models/net_g_latest.pth')  # doctest: +SKIP
    >>> for sharp in restorer.restore(frames): ...  # doctest: +SKIP

    Args:
        net: The network.
        network: Its options, as ``network_g`` in an option file.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps`` (Apple), or ``openvino:GPU``
            and ``openvino:NPU`` (Intel, where OpenVINO lists them).
        settings: ``backend``, ``precision``, ``tile``, ``size_multiple``, ``frames`` and ``self_ensemble``, as for
            :func:`build_restorer`.
    """

    def __init__(
        self, net: nn.Module, network: dict[str, Any], device: str | torch.device = 'auto', **settings: Any
    ) -> None:
        if str(device).startswith('openvino:'):
            if settings.get('backend', 'auto') not in ('auto', 'openvino'):
                raise DBLRError(
                    f'device {device} cannot be used with backend {settings["backend"]}; leave the backend out'
                )
            device, settings['backend'] = 'cpu', device
        self.device = _device(device)
        self.traits = NetworkTraits.of(network)
        self.restorer = build_restorer(net, self.traits, self.device, **settings)

    def lead(self, number: int) -> int:
        """Returns how many frames before frame ``number`` it and all later ones need to be restored as in the video."""
        traits = self.traits
        if traits.restores == 'all':
            return lead_of_shots(number, traits.num_frame)
        return lead_of_windows(number, traits.num_frame, traits.causal)

    @classmethod
    def from_weights(
        cls, weights: str | Path | None = None, option_file: str | Path | None = None, **settings: Any
    ) -> VideoRestorer:
        """Builds the network that a checkpoint belongs to; see :func:`load_network`.

        Args:
            weights: A ``.pth`` or ``.safetensors`` file, or a name from ``dblr weights``; None for the default weights.
            option_file: An option file with ``network_g``, for weights that do not name their network.
            settings: See the class.

        Raises:
            DBLRError: If the file cannot be read, belongs to another network, or does not name its network.
        """
        loaded = load_network(weights, option_file)
        return cls(loaded.net, loaded.options, **{'size_multiple': loaded.pad_multiple, **settings})

    @property
    def may_use_int8(self) -> bool:
        """Whether int8 may be used, so that :meth:`calibrate` has an effect."""
        return self.restorer.int8 is not None

    @property
    def needs_calibration(self) -> bool:
        """Whether int8 may be used and is not calibrated yet."""
        return self.restorer.needs_calibration

    def calibrate(self, parts: Iterable[Sequence[np.ndarray]]) -> None:
        """Calibrates int8 for the content to restore; without this call, it is calibrated on the first frames.

        Args:
            parts: Runs of consecutive frames from the whole content, each as long as a window, RGB ``(h, w, 3)``.
        """
        self.restorer.calibrate(map(self.window, parts))

    def calibrate_on_first(self, frames: Iterator[np.ndarray]) -> list[np.ndarray]:
        """Calibrates on the first frames of a stream, and returns the frames it consumed."""
        first = list(islice(frames, FIRST_FRAMES))
        length, num_frame = len(first), self.traits.num_frame
        starts = range(max(length - num_frame, 0) + 1) if first else ()
        self.calibrate(
            [first[min(start + offset, length - 1)] for offset in range(num_frame)] for start in spread(starts, WINDOWS)
        )
        return first

    def window(self, part: Sequence[np.ndarray]) -> Tensor:
        """Returns the network's input for a run of frames, ``(1, t, channels, h, w)``."""
        return _stacked(self._aligned([self._buffered(frame) for frame in part]))

    def restore(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Restores all frames of a video, in order; no window crosses a cut.

        Args:
            frames: RGB ``(h, w, 3)``, all of one size; uint8, or uint16 over its full range. They are not changed, and
                an array may be reused for the next frame.

        Yields:
            Each restored frame, a new array of the same type.

        Raises:
            DBLRError: A frame is something else, which names its number; or the network returns NaN.
        """
        frames = _checked(frames)
        if self.needs_calibration:
            frames = chain(self.calibrate_on_first(frames), frames)
        stream = (StreamFrame(self._buffered(frame), thumbnail(eight_bits(frame))) for frame in frames)
        traits = self.traits
        if traits.restores == 'all':
            parts = shots(stream, traits.num_frame)
        else:
            parts = windows(stream, traits.num_frame, traits.causal)
        for part in parts:
            for restored, blurry in self._restored(part):
                yield _pixels(restored, blurry.source.dtype)

    def restore_clip(
        self, read: Callable[[int], np.ndarray], length: int, numbers: range, padding: str = 'replicate'
    ) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Restores a range of frames from a clip, treated as one shot, for validation.

        Args:
            read: Returns the frame with a given number, RGB uint8 ``(h, w, 3)``; called once per frame, in a separate
                thread.
            length: Number of frames in the clip.
            numbers: The frames to restore.
            padding: How windows are padded at the clip's ends, see :func:`window_indices`.

        Yields:
            Each restored frame, float32 RGB ``(3, h, w)``, not clipped or rounded, and the blurry frame as read.
        """
        plan, numbers_of = self._plan(length, numbers, padding)
        frames = (self._buffered(frame) for frame in prefetch(map(read, first_uses(plan))))
        for part, restored_numbers in zip(gather(plan, frames), numbers_of, strict=True):
            for number, (restored, blurry) in zip(restored_numbers, self._restored(part), strict=True):
                if number in numbers:
                    yield restored, blurry.source

    def _plan(self, length: int, numbers: range, padding: str) -> tuple[list[list[int]], Sequence[Sequence[int]]]:
        """Returns the frame indices of each forward pass, and the indices that each pass restores.

        If all frames are restored, passes start at fixed indices, so results do not depend on the range requested.
        """
        traits = self.traits
        if traits.restores != 'all':
            plan = [window_indices(n, length, traits.num_frame, padding, traits.causal) for n in numbers]
            return plan, [[number] for number in numbers]
        most = traits.num_frame
        starts = range(numbers.start // most * most, numbers.stop, most)
        plan = [list(range(start, min(start + most, length))) for start in starts]
        return plan, plan

    def _buffered(self, frame: np.ndarray) -> BufferedFrame | np.ndarray:
        """Returns a frame as windows store it: pixels for flow, as aligned frames differ from window to window."""
        return frame if self.traits.flow else self._on_device(frame)

    def _aligned(self, part: list) -> list[BufferedFrame]:
        if not self.traits.flow:
            return part
        assert self.traits.restores != 'all'  # rejected by NetworkTraits
        aligned = align(part, self.traits.restores, self.traits.flow == 'consistent')
        return [self._on_device(frame) for frame in aligned]

    def _restored(self, part: list) -> list[tuple[Tensor, BufferedFrame]]:
        """Returns the restored frames of one forward pass, float32 ``(3, h, w)``, each with the blurry one."""
        part = self._aligned(part)
        window, restores = _stacked(part), self.traits.restores
        if restores == 'all':
            frames = torch.stack([self._rgb(frame) for frame in part], dim=1)
            return list(zip(self.restorer.restore(window, frames)[0], part, strict=True))
        blurry = part[restores]
        return [(self.restorer.restore(window, self._rgb(blurry))[0], blurry)]

    def _rgb(self, frame: BufferedFrame) -> Tensor:
        """Returns a frame as RGB ``(1, 3, h, w)`` in [0, 1]."""
        return frame.planes if self.traits.channels == 3 else _planes(frame.pixels).unsqueeze(0)

    def _on_device(self, frame: np.ndarray) -> BufferedFrame:
        # torch supports few operations on uint16
        wide = frame.astype(np.int32) if frame.dtype == np.uint16 else frame
        pixels = torch.from_numpy(np.ascontiguousarray(wide)).to(self.device, non_blocking=True)
        return BufferedFrame(frame, to_network_colour(_planes(pixels).unsqueeze(0), self.traits.channels), pixels)


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields a copy of each frame, as its array may be a buffer that the caller fills with the next one.

    Raises:
        DBLRError: A frame is no RGB frame of the first one's size and type.
    """
    first = None
    for number, frame in enumerate(frames):
        is_rgb = isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3 and frame.size > 0
        if not is_rgb or frame.dtype not in (np.uint8, np.uint16):
            raise DBLRError(
                f'frame {number} is {_described(frame)}; give RGB arrays (height, width, 3) of uint8, or of uint16 '
                'over its full range'
            )
        first = frame if first is None else first
        if (frame.shape, frame.dtype) != (first.shape, first.dtype):
            raise DBLRError(
                f'frame {number} is {_described(frame)}, unlike frame 0, {_described(first)}; restore frames of '
                'another size or type in a call of their own'
            )
        yield np.array(frame, order='C')


def _described(frame: object) -> str:
    if isinstance(frame, np.ndarray):
        return f'an array {frame.shape} of {frame.dtype}'
    return f'a {type(frame).__name__}'


def _device(name: str | torch.device) -> torch.device:
    """Returns the named device; raises DBLRError if it is not available."""
    if name == 'auto':
        if torch.cuda.is_available():
            return torch.device('cuda')
        return torch.device('mps' if torch.backends.mps.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        found = ', '.join(['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))])
        raise DBLRError(f"device '{name}' is not available; found: {found}") from error
    return device


def _stacked(part: list[BufferedFrame]) -> Tensor:
    """Returns the network's input, ``(1, t, channels, h, w)``."""
    return torch.stack([frame.planes for frame in part], dim=1)


def _planes(pixels: Tensor) -> Tensor:
    """Converts RGB ``(h, w, 3)`` to float32 ``(3, h, w)`` in [0, 1], on the same device."""
    return pixels.permute(2, 0, 1).contiguous().float().div_(255 if pixels.dtype == torch.uint8 else 65535)


def _pixels(planes: Tensor, dtype: np.dtype) -> np.ndarray:
    """Inverts :func:`_planes`, with clipping and rounding, and copies to the CPU; raises DBLRError for NaN."""
    if planes.isnan().any():  # as integers, it would be black
        raise DBLRError('the network returns NaN; use precision fp32, or other weights')
    top, exact = (255, torch.uint8) if dtype == np.uint8 else (65535, torch.int32)
    values = planes.clamp(0, 1).mul_(top).round_().permute(1, 2, 0)
    return values.to(exact).contiguous().cpu().numpy().astype(dtype, copy=False)
