"""Builds a network from a checkpoint, or as an option file describes it, and loads its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.archs import build_network
from torch import nn

from dblr_plugin.console import printable
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.named_network import check_named_network
from dblr_plugin.weights import load_weights, named_weights, read_checkpoint, shipped_weights
from dblr_plugin.yaml_file import import_files, read_option_file

__all__ = ['LoadedNetwork', 'load_network']

# what SimDeblur's weights are of, which say nothing of it
_SIMDEBLUR = {
    'type': 'DBLRNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 15, 'tail_conv': False,
}  # fmt: skip


@dataclass(frozen=True)
class LoadedNetwork:
    """A network and what is known of it.

    Attributes:
        net: In evaluation mode, on the CPU.
        options: Its options, as ``network_g`` of an option file.
        weights: The file they are from.
        trained_on: What they were trained on, where the file says it.
        pad_multiple: What frames' sides must be multiples of.
    """

    net: nn.Module
    options: dict[str, Any]
    weights: Path
    trained_on: str | None
    pad_multiple: int

    def __str__(self) -> str:
        trained_on = f', trained on {printable(self.trained_on)}' if self.trained_on else ''
        return f'{self.weights.name} ({type(self.net).__name__}{trained_on})'


def load_network(weights: str | Path | None = None, option_file: str | Path | None = None) -> LoadedNetwork:
    """Builds the network that a checkpoint belongs to; averaged weights are preferred.

    Args:
        weights: A ``.pth`` or ``.safetensors`` file; those of this package say of which network they are. None for
            the weights that come with the package.
        option_file: Where ``network_g`` stands, for weights that do not say; ``val.pad_multiple`` counts too.

    Raises:
        DBLRError: If the file cannot be read, or is of another network, or does not say of which.
    """
    weights = shipped_weights() if weights is None else Path(weights)
    content = read_checkpoint(weights)
    if option_file is None:
        options, pad_multiple = _network_of(content, weights), _pad_multiple_of(content, weights)
    else:
        file = _read_options(option_file)
        options, pad_multiple = file['network_g'], (file.get('val') or {}).get('pad_multiple', 1)
    try:
        net = build_network(options).eval()
    except (KeyError, TypeError, ValueError) as error:
        raise DBLRError(
            f'{option_file or weights}: its network cannot be built ({error}): {options}; name the option '
            'file that it was trained with (-opt)'
        ) from error
    load_weights(net, weights, param_key='params_ema')
    return LoadedNetwork(net, options, weights, content.get('trained_on'), pad_multiple)


def _network_of(content: dict, weights: Path) -> dict[str, Any]:
    if isinstance(content.get('network'), dict):
        check_named_network(content['network'], named_weights(content, weights, 'params_ema'), weights)
        return content['network']
    if any(name.startswith('L_in.') for name in named_weights(content, weights, 'params_ema')):
        return dict(_SIMDEBLUR)
    raise DBLRError(f'{weights}: does not say of which network it is; name the option file it was trained with (-opt)')


def _pad_multiple_of(content: dict, weights: Path) -> int:
    multiple = content.get('pad_multiple', 1)
    if not isinstance(multiple, int) or multiple < 1:
        raise DBLRError(f'{weights}: pad_multiple is {multiple!r}, not a number from 1; name its option file (-opt)')
    return multiple


def _read_options(path: str | Path) -> dict[str, Any]:
    options = read_option_file(path).plain()
    if not isinstance(options, dict) or not isinstance(options.get('network_g'), dict):
        raise DBLRError(f'{path}: has no section network_g; name the option file the weights were trained with')
    import_files(options.get('imports') or ())
    return options
