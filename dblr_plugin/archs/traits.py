"""A network's inputs and outputs, so that no other code has to inspect its constructor."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor

from dblr_plugin.errors import DBLRError

__all__ = ['NetworkTraits', 'network_argument', 'pad_multiple', 'restored_index', 'restored_of', 'round_up']


@dataclass(frozen=True)
class NetworkTraits:
    """Describes a network that takes frames ``(b, num_frame, channels, h, w)`` and restores one of them, or all.

    A network class that restores all frames, such as a recurrent one, sets the attribute ``restores = 'all'``; it
    returns ``(b, num_frame, channels, h, w)`` and also accepts shorter clips.

    Attributes:
        channels: 1 for Y, 3 for RGB.
        num_frame: Frames in a window; if all frames are restored, the maximum per forward pass.
        restores: Index of the restored frame, or ``'all'``.
        flow: Whether the other frames are aligned to that one by optical flow; ``'consistent'`` if their occluded
            pixels are also taken from that frame.
    """

    channels: int
    num_frame: int
    restores: int | Literal['all']
    flow: bool | Literal['consistent']

    @classmethod
    def of(cls, network: Mapping[str, Any]) -> NetworkTraits:
        """Returns the traits of a network's options, ``network_g`` of an option file.

        Raises:
            DBLRError: If the network restores all frames, but ``flow`` is set.
        """
        num_frame = network_argument(network, 'num_frame', 5)
        last = network.get('center_frame_idx') == num_frame - 1  # how EDVR is made causal
        causal = bool(network_argument(network, 'causal', last))
        restores = getattr(ARCH_REGISTRY.get(network['type']), 'restores', None)
        flow = network_argument(network, 'flow', False)
        if flow and restores == 'all':
            raise DBLRError(
                f'{network["type"]} restores all frames, so there is none that flow could align the others to; set '
                'network_g.flow to false'
            )
        return cls(
            channels=network_argument(network, 'num_in_ch', 3),
            num_frame=num_frame,
            restores='all' if restores == 'all' else restored_index(num_frame, causal),
            flow=flow,
        )

    @property
    def causal(self) -> bool:
        """Whether the last frame of a window is restored, so that no later frame is needed."""
        return self.num_frame > 1 and self.restores == restored_index(self.num_frame, causal=True)


def restored_index(num_frame: int, causal: bool) -> int:
    """Returns the index of the frame to restore: the last of a causal window, otherwise the middle one."""
    return num_frame - 1 if causal else num_frame // 2


def restored_of(output: object) -> Tensor:
    """Returns a network's output; raises DBLRError unless it is a tensor (some networks also return the flow)."""
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise DBLRError(f'the network returns a {kind}; let its forward return the restored tensor alone')
    return output


#: BasicSR's networks that need sides of multiples; ours pad frames themselves
_PAD_MULTIPLES = {'EDVR': 16}


def pad_multiple(name: str, given: int = 1) -> int:
    """Returns the multiple to which a network's frames are padded; ``given`` is ``val.pad_multiple``."""
    return math.lcm(given, _PAD_MULTIPLES.get(name, 1))


def round_up(side: int, multiple: int) -> int:
    """Returns the smallest multiple that is not below ``side``."""
    return -(-side // multiple) * multiple


def network_argument(network: Mapping[str, Any], name: str, missing: object) -> Any:
    """Returns an argument of ``network_g`` or ``network_d``: its value, or the class's default, or ``missing``."""
    if name in network:
        return network[name]
    argument = inspect.signature(ARCH_REGISTRY.get(network['type'])).parameters.get(name)
    return missing if argument is None else argument.default
