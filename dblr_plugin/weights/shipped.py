"""The weights that come with the package. README.md beside them says what they are good for, and their checksum."""

from __future__ import annotations

from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = ['SHIPPED', 'shipped_weights']

#: What ``dblr deblur`` restores with unless told otherwise.
SHIPPED = Path(__file__).with_name('MultiScaleDBLRNet_light.safetensors')


def shipped_weights() -> Path:
    """The file of the weights that come with the package.

    Raises:
        DBLRError: This installation lacks it.
    """
    if not SHIPPED.is_file():
        raise DBLRError(f'{SHIPPED}: this installation lacks the default weights; install it again, or name --weights')
    return SHIPPED
