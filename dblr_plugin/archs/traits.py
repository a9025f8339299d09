"""What windows of frames a network takes, from its options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY

__all__ = ['NetworkTraits', 'network_argument']


@dataclass(frozen=True)
class NetworkTraits:
    """A window ``(num_frame, channels, h, w)``.

    Attributes:
        channels: 1 for Y, 3 for RGB.
        num_frame: Its frames.
        causal: Whether the last of them is restored, not the middle one.
        flow: Whether the others are aligned to that one.
    """

    channels: int
    num_frame: int
    causal: bool
    flow: bool

    @classmethod
    def of(cls, network: Mapping[str, Any]) -> NetworkTraits:
        """That of a network's options, ``network_g`` of an option file."""
        num_frame = network_argument(network, 'num_frame', 5)
        last = network.get('center_frame_idx') == num_frame - 1  # as EDVR says it
        return cls(
            channels=network_argument(network, 'num_in_ch', 3),
            num_frame=num_frame,
            causal=bool(network_argument(network, 'causal', last)),
            flow=bool(network_argument(network, 'flow', False)),
        )

    @property
    def restored(self) -> int:
        """The index of the frame that is restored."""
        return self.num_frame - 1 if self.causal else self.num_frame // 2


def network_argument(network: Mapping[str, Any], name: str, missing: object) -> Any:
    """An argument of a network's class: as its options give it, else the class's default.

    Args:
        network: ``network_g`` or ``network_d`` of the options.
        name: The argument, such as ``num_in_ch``.
        missing: Returned for a class that has no such argument.
    """
    if name in network:
        return network[name]
    argument = inspect.signature(ARCH_REGISTRY.get(network['type'])).parameters.get(name)
    return missing if argument is None else argument.default
