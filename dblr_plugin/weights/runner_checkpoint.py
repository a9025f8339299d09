"""Checkpoints of MMEngine's Runner, read without MMEngine.

The Runner saves a model's weights under ``state_dict``, by EMAHook the averaged ones there and the trained ones under
``ema_state_dict``; and its log, as objects of MMEngine and NumPy. The restoration network is ``generator`` there, in
MMagic's models and in ours, which also note of which network they are (``dblr_plugin.mmengine``).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ['NETWORK_KEY', 'is_of_runner', 'may_have_log', 'networks_of_runner', 'read_without_log']

#: Where our models note, in the Runner's message hub, what their checkpoints are of: ``network`` and ``pad_multiple``.
NETWORK_KEY = 'dblr_network'

_LOG = 'mmengine.logging.history_buffer.HistoryBuffer'
_PARTS_OF_LOG = (_LOG, 'builtins.getattr', 'numpy.')
_FILES = {'generator': 'params', 'discriminator': 'params_d'}


class _Skipped:
    """Takes the place of any object of the log: nothing that the file names is run."""

    def __new__(cls, *args: object) -> _Skipped:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def may_have_log(path: Path) -> bool:
    """Whether a file of torch that holds objects has those of a Runner's log, and no others."""
    if not zipfile.is_zipfile(path):
        return False
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return _LOG in names and all(name.startswith(_PARTS_OF_LOG) for name in names)


def read_without_log(path: Path) -> object:
    """Reads such a file to the CPU, its log left out."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([(_Skipped, name) for name in names]):
        return torch.load(path, map_location='cpu', weights_only=True)


def is_of_runner(content: Mapping[str, Any]) -> bool:
    """Whether this is what the Runner saves of a model with a ``generator``."""
    state = content.get('state_dict')
    return isinstance(state, dict) and any(str(name).startswith('generator.') for name in state)


def networks_of_runner(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same checkpoint as the other trainer saves it: ``params``, ``params_ema``, ``params_d``, ``network``."""
    weights = _by_network(content['state_dict'])
    averaged = content.get('ema_state_dict')
    if isinstance(averaged, dict):
        trained = {str(name).removeprefix('module.'): value for name, value in averaged.items()}
        weights |= {'params_ema': weights['params'], 'params': _by_network(trained).get('params', {})}
    hub = content.get('message_hub')
    noted = hub.get('runtime_info') if isinstance(hub, dict) else None
    about = noted.get(NETWORK_KEY) if isinstance(noted, dict) else None
    known = ('network', 'pad_multiple')
    return weights | ({key: about[key] for key in known if key in about} if isinstance(about, dict) else {})


def _by_network(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        network, _, own_name = str(name).partition('.')
        if network in _FILES:
            found.setdefault(_FILES[network], {})[own_name] = value
    return found
