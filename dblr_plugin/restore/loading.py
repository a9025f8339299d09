"""Builds a network from a checkpoint or an option file, and loads its weights."""

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

from dblr_plugin.archs.traits import network_argument, pad_multiple
from dblr_plugin.console import printable
from dblr_plugin.errors import DBLRError
from dblr_plugin.value_types import NETWORK, fault
from dblr_plugin.weights.checkpoint import fill, named_weights, read_checkpoint, tell_other_network
from dblr_plugin.weights.shipped import find_weights
from dblr_plugin.yaml_file import import_files, read_option_file

__all__ = ['LoadedNetwork', 'check_named_network', 'load_network']

_LEAST_BOUND = 512  # for numbers, such as frames or groups, that the weights do not reveal
_MOST_FRAMES = 64
_MODULES_OF_A_TENSOR = 8  # at most: an activation or container per layer, and their parents
# arguments that make networks load or download files when they are built
_LOADS = re.compile('path|file|pretrain|load|download|url', re.IGNORECASE)


def check_named_network(options: Mapping[str, Any], weights: Mapping[str, Tensor], path: object) -> None:
    """Rejects a network that would need far more memory than its weights, or load or download other files.

    The class must take windows (``num_in_ch``), and the arguments must fit its signature.

    Raises:
        DBLRError: If it is rejected; names the file, the argument and the workaround, an option file.
    """
    problem = _problem(options, weights)
    if problem is not None:
        raise DBLRError(
            f'{path}: its network {problem}; if you trust it, name the option file it was trained with ({_GIVEN_AS})'
        )


def _problem(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str | None:
    name, classes = options.get('type'), NETWORK.classes()
    if not isinstance(name, str) or name not in classes:
        return f'cannot be built ({name!r} is not a registered class)'
    accepted = NETWORK.arguments(classes[name])
    if 'num_in_ch' not in accepted.annotations:
        return f'cannot be built from a checkpoint alone: {name} has no num_in_ch'
    bound = max([_LEAST_BOUND, len(weights), *(side for tensor in weights.values() for side in tensor.shape)])
    for key, value in options.items():
        if key == 'type':
            continue
        if key not in accepted.annotations:
            return f'cannot be built ({name} has no argument {key!r})'
        if _LOADS.search(key) and value:
            return f'names another file or loads one ({key}: {value!r})'
        if found := fault(value, accepted.annotations[key]) or _out_of_bounds(value, bound):
            return f'cannot be built ({key} {found})'
    if options.get('num_frame', 5) > _MOST_FRAMES:
        return f'cannot be built (num_frame is {options["num_frame"]})'
    try:
        # allocates no weights
        with torch.device('meta'), _few_modules(_MODULES_OF_A_TENSOR * len(weights) + _LEAST_BOUND):
            network = classes[name](**{key: value for key, value in options.items() if key != 'type'})
    except Exception as error:  # a class may raise anything for bad arguments
        return f'cannot be built ({error})'
    needed, given = (sum(t.numel() for t in state.values()) for state in (network.state_dict(), weights))
    if needed > 2 * given + 1_000_000:
        return f'cannot be that of its weights: it has {needed} numbers, and they {given}'
    return None


@contextmanager
def _few_modules(most: int) -> Iterator[None]:
    """Aborts building a network with more than ``most`` modules, which takes minutes even without real weights."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError(f'it has more than {most} modules, far more than its weights have')

    handle = register_module_module_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()


def _out_of_bounds(value: object, bound: int) -> str | None:
    """Returns what is wrong with a number or string, or with those in a list; None if nothing is."""
    if isinstance(value, list | tuple):
        return next(filter(None, (_out_of_bounds(entry, bound) for entry in value)), None)
    if isinstance(value, int | float) and not -bound <= value <= bound:
        return f'is {value}, too large for its weights'
    if isinstance(value, str) and not re.fullmatch(r'\w{1,40}', value):
        return f'is the text {value[:40]!r}'
    return None


# the network of SimDeblur's weights, which do not name it
_GIVEN_AS = '-opt, or option_file in Python'
_SIMDEBLUR = {'type': 'DBLRNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 15, 'tail_conv': False}


@dataclass(frozen=True)
class LoadedNetwork:
    """A network and its metadata.

    Attributes:
        net: The network, in evaluation mode, on the CPU.
        options: Its options, as ``network_g`` in an option file.
        weights: The file its weights come from.
        trained_on: What the weights were trained on, if the file says so.
        pad_multiple: Frame height and width must be multiples of this.
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
    """Builds the network that a checkpoint belongs to; EMA weights are preferred.

    Args:
        weights: A ``.pth`` or ``.safetensors`` file (those written by this package name their network), or the name of
            weights that come with the package (``dblr weights``); None for the default weights.
        option_file: An option file with ``network_g``, for weights that do not name their network; its
            ``val.pad_multiple``, if it has one, replaces that of the checkpoint.

    Raises:
        DBLRError: If the file cannot be read, belongs to another network, or does not name its network.
    """
    by_default = weights is None
    weights = find_weights(weights)
    content = read_checkpoint(weights)
    theirs = named_weights(content, weights, 'params_ema')
    val: dict[str, Any] = {}
    if option_file is None:
        options = _network_of(content, theirs, weights)
    else:
        options, val = _read_options(option_file)
    name, multiple = f'{weights}: pad_multiple', content.get('pad_multiple', 1)
    fix = f'name its option file ({_GIVEN_AS}), with val.pad_multiple'
    if 'pad_multiple' in val:
        name, multiple, fix = f'{option_file}: val.pad_multiple', val['pad_multiple'], 'correct it'
    if not isinstance(multiple, int) or multiple < 1:
        raise DBLRError(f'{name} is {multiple!r}, not a number from 1; {fix}')
    try:
        net = build_network(options).eval()
    except Exception as error:  # a class may raise anything for bad arguments
        raise DBLRError(
            f'{option_file or weights}: its network cannot be built ({error}): {options}; name the option '
            f'file that it was trained with ({_GIVEN_AS})'
        ) from error
    channels = network_argument(options, 'num_in_ch', 3)
    if channels not in (1, 3):
        raise DBLRError(
            f'{option_file or weights}: its network takes frames of {channels} channels, not of 1 (Y) or 3 (RGB); '
            'use another one'
        )
    try:
        fill(net, theirs, weights)
    except DBLRError as error:
        if by_default and option_file is not None:
            raise DBLRError(
                f'{option_file}: its network is not that of the default weights; give the weights too (--weights)'
            ) from error
        raise
    tell_other_network(content, options, weights)
    trained_on = content.get('trained_on')
    multiple = pad_multiple(options['type'], multiple)
    return LoadedNetwork(net, options, weights, trained_on if isinstance(trained_on, str) else None, multiple)


def _network_of(content: dict, weights: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    if isinstance(content.get('network'), dict):
        check_named_network(content['network'], weights, path)
        return content['network']
    if any(name.startswith('L_in.') for name in weights):
        return dict(_SIMDEBLUR)
    raise DBLRError(f'{path}: does not state its network; give the option file it was trained with ({_GIVEN_AS})')


def _read_options(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns ``network_g`` and ``val`` of an option file, after importing the files that it names."""
    options = read_option_file(path).plain()
    if not isinstance(options, dict) or not isinstance(options.get('network_g'), dict):
        raise DBLRError(f'{path}: has no section network_g; name the option file the weights were trained with')
    val = options.get('val') or {}
    if not isinstance(val, dict):
        raise DBLRError(f'{path}: val is {val!r}, not a section; correct it')
    import_files(options.get('imports') or ())
    return options['network_g'], val
