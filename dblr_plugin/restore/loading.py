"""Builds a network from a checkpoint, or as an option file describes it, and loads its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from basicsr.archs import build_network
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from dblr_plugin.console import printable
from dblr_plugin.errors import DBLRError
from dblr_plugin.value_types import NETWORK, fault
from dblr_plugin.weights.checkpoint import read_checkpoint
from dblr_plugin.weights.loading import load_weights, named_weights
from dblr_plugin.weights.shipped import find_weights
from dblr_plugin.yaml_file import import_files, read_option_file

__all__ = ['LoadedNetwork', 'check_named_network', 'load_network']

_LEAST_BOUND = 512  # of numbers, such as those of frames and groups, that the weights do not show
_MOST_FRAMES = 64
_MODULES_OF_A_TENSOR = 8  # at most: an activation or a container beside each layer, and what holds those
# what networks load or download when they are built
_LOADS = re.compile('path|file|pretrain|load|download|url', re.IGNORECASE)


def check_named_network(options: Mapping[str, Any], weights: Mapping[str, Tensor], path: object) -> None:
    """Refuses to build what would take more memory than its weights say, or read or fetch other files.

    A class must take windows (``num_in_ch``); its arguments must fit its signature.

    Args:
        options: ``type`` and arguments.
        weights: All weights of the file.
        path: The file, for messages.

    Raises:
        DBLRError: With the argument, and the way around it: an option file.
    """
    problem = next(_problems(options, weights), None)
    if problem is not None:
        raise DBLRError(
            f'{path}: its network {problem}; if you trust it, name the option file it was trained with (-opt)'
        )


def _problems(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Iterator[str]:
    name, classes = options.get('type'), NETWORK.classes()
    if not isinstance(name, str) or name not in classes:
        yield f'cannot be built ({name!r} is not a registered class)'
        return
    accepted = NETWORK.arguments(classes[name])
    if 'num_in_ch' not in accepted.annotations:
        yield f'cannot be built from a checkpoint alone: {name} has no num_in_ch'
    bound = max([_LEAST_BOUND, len(weights), *(side for tensor in weights.values() for side in tensor.shape)])
    for key, value in options.items():
        if key == 'type':
            continue
        if key not in accepted.annotations:
            yield f'cannot be built ({name} has no argument {key!r})'
        elif _LOADS.search(key) and value:
            yield f'names another file or loads one ({key}: {value!r})'
        elif found := fault(value, accepted.annotations[key]) or _out_of_bounds(value, bound):
            yield f'cannot be built ({key} {found})'
    if options.get('num_frame', 5) > _MOST_FRAMES:
        yield f'cannot be built (num_frame is {options["num_frame"]})'
    yield from _too_large(options, weights)


def _out_of_bounds(value: object, bound: int) -> str | None:
    """What is wrong with a number or a text, or those in a list."""
    if isinstance(value, list | tuple):
        return next(filter(None, (_out_of_bounds(entry, bound) for entry in value)), None)
    if isinstance(value, int | float) and not -bound <= value <= bound:
        return f'is {value}, more than its weights show'
    if isinstance(value, str) and not re.fullmatch(r'\w{1,40}', value):
        return f'is the text {value[:40]!r}'
    return None


@contextmanager
def _few_modules(most: int) -> Iterator[None]:
    """Ends the building of a network of more modules, which takes minutes even without memory for weights."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError(f'it has more than {most} modules, far more than its weights show')

    handle = register_module_module_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()


def _too_large(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Builds the network without memory for its weights, and compares."""
    arguments = dict(options)
    try:
        with torch.device('meta'), _few_modules(_MODULES_OF_A_TENSOR * len(weights) + _LEAST_BOUND):
            network = NETWORK.classes()[arguments.pop('type')](**arguments)
    except Exception as error:  # whatever a class says to its arguments
        yield f'cannot be built ({error})'
        return
    needed, given = (sum(t.numel() for t in state.values()) for state in (network.state_dict(), weights))
    if needed > 2 * given + 1_000_000:
        yield f'cannot be that of its weights: it has {needed} numbers, and they {given}'


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
        weights: A ``.pth`` or ``.safetensors`` file; those of this package say of which network they are. Or the name
            of weights that come with the package (``dblr weights``); None for the default ones.
        option_file: Where ``network_g`` stands, for weights that do not say; ``val.pad_multiple`` counts too.

    Raises:
        DBLRError: If the file cannot be read, or is of another network, or does not say of which.
    """
    weights = find_weights(weights)
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
    raise DBLRError(
        f'{weights}: does not say which network it is of; give the option file that it was trained with (-opt)'
    )


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
