"""The weights bundled with the package; finds them by name, and others by path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dblr_plugin.errors import DBLRError, nearest

__all__ = ['DEFAULT', 'SHIPPED', 'Shipped', 'find_weights']


@dataclass(frozen=True)
class Shipped:
    """Weights bundled with this package, with the results in the ``README.md`` beside them, means of 12 clips."""

    file: str
    purpose: str
    kmacs: float  # thousand multiply-adds per pixel
    motion: float  # gain in PSNR, dB, on held-out videos blurred by averaging their frames
    hand: float  # the same with simulated camera shake
    sharp: float  # PSNR in dB of the output for their sharp frames

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(__file__).with_name(self.file)


#: Name -> weights.
SHIPPED = {
    'light': Shipped(
        'light.safetensors', 'half the gain, three times as fast on a CPU', 29.4, motion=0.79, hand=0.66, sharp=51.3
    ),
    'balanced': Shipped('balanced.safetensors', 'the default', 116.1, motion=1.41, hand=1.36, sharp=54.7),
    'light-causal': Shipped(
        'light-causal.safetensors', 'for live video: uses no later frames', 29.4, motion=0.60, hand=0.54, sharp=51.8
    ),
}
#: Used if no weights are named.
DEFAULT = 'balanced'


def find_weights(given: str | Path | None) -> Path:
    """Returns the path of the weights.

    Args:
        given: A name in ``SHIPPED``, or a file; None for the default.

    Raises:
        DBLRError: There is no such file and no weights with that name, or this installation lacks them.
    """
    if not isinstance(given, str | Path | None):
        raise DBLRError(f'weights cannot be a {type(given).__name__}; give a file or a name')
    name = DEFAULT if given is None else str(given)
    if name not in SHIPPED:
        path = Path(name)
        if not name or (not path.suffix and not path.exists()):
            raise DBLRError(f"weights '{name}': neither a file nor one of {', '.join(SHIPPED)}{nearest(name, SHIPPED)}")
        if not path.is_file():
            raise DBLRError(f'{path}: no such checkpoint; check its path')
        return path
    path = SHIPPED[name].path
    if not path.is_file():
        raise DBLRError(f'{path}: this installation lacks these weights; install it again, or name a file (--weights)')
    return path
