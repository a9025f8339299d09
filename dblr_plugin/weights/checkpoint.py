"""Checkpoint files: written completely or not at all, read only if undamaged, and loaded into the matching network.

A checkpoint is a dict with weights under ``params`` (and ``params_ema``) and their description: ``network``, its
options; ``trained_on``, a text; ``pad_multiple``, which frame sizes must be multiples of; ``format_version``. A
``.pth`` file is that dict. A ``.safetensors`` file has ``params``, and all else in its metadata, as JSON if not text.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dblr_plugin.archs.dblrnet_arch import rename_simdeblur_keys
from dblr_plugin.archs.dbn_arch import DBN, rename_simdeblur_dbn_keys
from dblr_plugin.archs.deepdeblur_arch import rename_authors_keys
from dblr_plugin.archs.traits import network_argument
from dblr_plugin.console import printable
from dblr_plugin.errors import DBLRError, first_line
from dblr_plugin.files import atomic_write

__all__ = [
    'FORMAT_VERSION', 'NETWORK_KEY', 'fill', 'load_state_dict', 'load_weights', 'matching_weights', 'named_weights',
    'read_checkpoint', 'save_atomically', 'tell_other_network', 'translated',
]  # fmt: skip

_log = logging.getLogger(__name__)

#: Current ``format_version`` of network checkpoints; files without one are version 1.
FORMAT_VERSION = 1

_DIGEST = 'tensors_sha256'  # the safetensors format has no checksum
_MOST_TENSORS = 100_000  # networks have hundreds, a training state a few times as many
_JSON = {'network': dict, 'pad_multiple': int, 'format_version': int}


def save_atomically(content: dict, path: str | Path) -> None:
    """Saves to a temporary file beside ``path`` and renames it, so that ``path`` is never incomplete.

    Args:
        content: A checkpoint, with ``params`` as its only weights for a ``.safetensors`` file; or anything that
            torch can save.
        path: The file; its suffix determines the format.

    Raises:
        DBLRError: The file cannot be written.
    """
    path = Path(path)
    with atomic_write(path, sync=True) as partial:
        try:
            _save_safetensors(content, partial) if _is_safetensors(path) else torch.save(content, partial)
        except RuntimeError as error:
            if 'PytorchStreamWriter failed' in str(error) or 'unexpected pos' in str(error):
                # a disk error, of which torch passes on no details
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error
            raise


def read_checkpoint(path: str | Path) -> dict:
    """Reads a ``.pth``, ``.state`` or ``.safetensors`` file to the CPU.

    Raises:
        DBLRError: The file does not exist, is damaged, contains anything but tensors and plain values, or has a newer
            format.
    """
    path = Path(path)
    if not path.is_file():
        raise DBLRError(f'{path}: no such checkpoint; check its path')
    try:
        content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise DBLRError(f'{path}: damaged, or not a checkpoint ({first_line(error)}); use another one') from error
    if not isinstance(content, dict) or not content:
        raise DBLRError(f'{path}: not a checkpoint: it holds a {type(content).__name__}, not named weights')
    version = content.get('format_version', 1)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DBLRError(
            f'{path}: its format is version {version}, and this dblr_plugin reads version {FORMAT_VERSION} and older; '
            'update dblr_plugin'
        )
    return _networks_of_runner(content)


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == '.safetensors'


def _read_torch(path: Path) -> object:
    # torch.load ignores the checksums of its zip file's records
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _refuse_inflated(archive, path.stat().st_size)
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f'{damaged} does not fit its checksum')
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
        is_log = _LOG in named and all(name.startswith(_PARTS_OF_LOG) for name in named)
        if named and not is_log:
            raise DBLRError(
                f'{path}: besides tensors and plain values it holds {", ".join(sorted(named)[:3])}, which could run '
                "code and is not read; ask for a file of the weights alone: torch.save({'params': net.state_dict()}, "
                "'net.pth')"
            )
        with torch.serialization.safe_globals([(_Skipped, name) for name in named]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, LookupError, TypeError, AttributeError) as error:
        # torch's message suggests running code from the file; for a text file it raises whatever its bytes lead to
        raise ValueError('torch cannot read it, or it holds more than tensors and plain values') from error


def _refuse_inflated(archive: zipfile.ZipFile, size: int) -> None:
    """Checks the records' headers before reading any: torch never compresses, and a few MB could inflate to a TB."""
    records = archive.infolist()
    if len(records) > _MOST_TENSORS:
        raise ValueError(f'it has {len(records)} records')
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError('its records are compressed, which torch never does')
    if sum(record.file_size for record in records) > size:
        raise ValueError('its records overlap')


def _save_safetensors(content: dict, path: Path) -> None:
    # safetensors refuses tensors that share memory, as those of tied layers do
    params = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in content['params'].items()}
    described = {key: value for key, value in content.items() if key != 'params'}
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
    # save_file would create a file that only its owner can read
    path.write_bytes(save(params, metadata | {_DIGEST: _digest(params)}))


def _read_safetensors(path: Path) -> dict:
    with safe_open(path, framework='pt') as file:
        metadata = file.metadata() or {}
        params = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    digest = metadata.pop(_DIGEST, None)
    if digest not in (None, _digest(params)):
        raise ValueError('its tensors do not fit their checksum')
    for key in _JSON.keys() & metadata.keys():
        try:
            value = json.loads(metadata.pop(key))
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, _JSON[key]):
            metadata[key] = value
        elif digest is not None:  # other programs have other meanings for these names
            raise ValueError(f'{key} in its metadata is not a {_JSON[key].__name__}')
    return {**metadata, 'params': params}


def _digest(tensors: dict[str, Tensor]) -> str:
    """Returns the SHA-256 of all names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)} '.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# MMEngine's Runner saves a model's weights under ``state_dict``; with EMAHook, the averaged ones there and the trained
# ones under ``ema_state_dict``. It also saves its log, as MMEngine and NumPy objects. The restoration network is called
# ``generator``, both in MMagic's models and in ours, which also record which network it is (``dblr_plugin.mmengine``).

#: Key in the Runner's message hub under which our models describe their network: ``network`` and ``pad_multiple``.
NETWORK_KEY = 'dblr_network'

_LOG = 'mmengine.logging.history_buffer.HistoryBuffer'
_PARTS_OF_LOG = (_LOG, 'builtins.getattr', 'numpy.')
_FILES = {'generator': 'params', 'discriminator': 'params_d'}


class _Skipped:
    """Stands in for any object in the log, so that no code named in the file is run."""

    def __new__(cls, *args: object) -> _Skipped:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _networks_of_runner(content: dict[str, Any]) -> dict[str, Any]:
    """Converts a Runner's checkpoint of a model with a ``generator`` to our format; returns others unchanged."""
    state = content.get('state_dict')
    if not isinstance(state, dict) or not any(str(name).startswith('generator.') for name in state):
        return content
    weights = _by_network(state)
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


#: Keys under which trainers store weights: BasicSR; MMagic, Lightning and others; SimDeblur; DeepDeblur's authors. They
#: may be nested.
_GROUPS = (
    'params', 'params_ema', 'state_dict', 'model', 'model_state_dict', 'net', 'net_g', 'generator', 'ema', 'G',
)  # fmt: skip
_SIMDEBLUR_DBN = 'F1_1.0.weight'
#: A weight name that occurs only in other projects' checkpoints -> function that translates their names to ours.
_TRANSLATIONS = {
    'L_in.0.weight': rename_simdeblur_keys,
    _SIMDEBLUR_DBN: rename_simdeblur_dbn_keys,
    'body_models.0.body.0.weight': rename_authors_keys,
}


def load_state_dict(path: str | Path, param_key: str | None = 'params') -> dict[str, Tensor]:
    """Returns the weights in a checkpoint file from any supported trainer.

    Args:
        path: A file from BasicSR (weights under ``params`` and ``params_ema``), SimDeblur (``model``), DeepDeblur's
            authors (``G``) or others (``state_dict``), or with bare weights; names may have DataParallel's ``module.``
            and torch.compile's ``_orig_mod.`` prefixes. Names from SimDeblur's DBLRNet and DBN and from DeepDeblur's
            authors are translated. :func:`load_weights` also finds a network within a larger module.
        param_key: The key of the weights; None for bare ones. Instead of ``params`` and ``params_ema``, the defaults,
            a file may have any key that such programs use.

    Raises:
        DBLRError: There are no weights under that key.
    """
    return translated(named_weights(read_checkpoint(path), path, param_key))


def named_weights(content: dict, path: str | Path, param_key: str | None = 'params') -> dict[str, Tensor]:
    """Returns the weights in what :func:`read_checkpoint` read from ``path``.

    They have the names of the network that was saved. ``param_key`` and errors are those of :func:`load_state_dict`.
    """
    found, held = param_key in (None, 'params', 'params_ema'), sorted(map(str, content))[:8]
    while not all(isinstance(v, Tensor) for v in content.values()):
        groups = [k for k, v in content.items() if isinstance(v, dict)]
        key = next((k for k in (param_key, *_GROUPS) if k in groups), None)
        if key is None:
            if any(isinstance(v, Tensor) for v in content.values()):
                raise DBLRError(f'{path}: not a checkpoint: it contains other values besides weights')
            raise DBLRError(f'{path}: no weights under {param_key!r}; the file holds {sorted(map(str, content))[:8]}')
        found = found or key == param_key
        content = content[key]
    if not found:
        raise DBLRError(f'{path}: no weights under {param_key!r}; the file holds {held}')
    if not all(isinstance(k, str) for k in content):
        raise DBLRError(f'{path}: not a checkpoint: it does not contain named weights; use another one')
    return {_bare(k): v for k, v in content.items()}


def _bare(name: str) -> str:
    """Returns a weight's name without the prefixes of torch.compile and DataParallel, also around submodules."""
    name = name.replace('_orig_mod.', '')
    while name.startswith('module.'):
        name = name.removeprefix('module.')
    return name


def translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights under our networks' names, translating other projects' names."""
    translate = next((t for name, t in _TRANSLATIONS.items() if name in state), None)
    return translate(state) if translate else state


def _unwrapped(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights under one prefix, if it has all names of the network (``own``); else all weights.

    Larger modules have such a prefix: Lightning's ``model.``, MMagic's ``generator.``.
    """
    first = next(iter(own), '')
    prefixes = [name.removesuffix(first) for name in state if name.endswith(f'.{first}')]
    found = next((prefix for prefix in prefixes if all(prefix + name in state for name in own)), None)
    return state if found is None or first in state else {name: state[found + name] for name in own}


def load_weights(net: nn.Module, path: str | Path, strict: bool = True, param_key: str | None = 'params') -> None:
    """Loads a checkpoint file into a network.

    Args:
        net: The bare network.
        path: See :func:`load_state_dict`.
        strict: Whether every weight must match. Otherwise, weights with matching name and shape are loaded, and the
            log says what does not match.
        param_key: See :func:`load_state_dict`.

    Raises:
        DBLRError: Weights are missing, unexpected or of another shape (without ``strict``: less than half of the
            network's weights match); one is NaN or infinite; or they match, but are for a network that computes
            something else.
    """
    fill(net, named_weights(read_checkpoint(path), path, param_key), path, strict)


def fill(net: nn.Module, theirs: dict[str, Tensor], path: str | Path, strict: bool = True) -> None:
    """Like :func:`load_weights`, with weights that :func:`named_weights` returned."""
    if isinstance(net, DBN) and _SIMDEBLUR_DBN in theirs and not net.simdeblur:
        raise DBLRError(f"{path}: weights of SimDeblur's DBN, which is another network; set network_g.simdeblur: true")
    state = _unwrapped(translated(theirs), net.state_dict())
    _make_buffers(net, state)
    matching = matching_weights(net, state, path, strict)
    net.load_state_dict(matching, strict=strict)


def _make_buffers(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Makes buffers that the weights have, and that are None until a network's first forward pass, such as caches."""
    modules, weight = dict(net.named_modules()), next(net.parameters(), torch.empty(0))
    for name, tensor in state.items():
        place, _, key = name.rpartition('.')
        if place in modules and modules[place]._buffers.get(key, tensor) is None:
            setattr(modules[place], key, tensor.to(weight.device, copy=True))


def tell_other_network(content: Mapping[str, Any], options: Mapping[str, Any], path: str | Path) -> None:
    """Warns if a checkpoint names another network than ``options`` do: weights may fit both, and results still differ.

    ``input_skip`` and ``causal``, for example, have no weights.
    """
    named = content.get('network')
    if not isinstance(named, dict):
        return
    keys = ['type']
    if named.get('type') == options['type']:
        keys = [key for key in named | dict(options) if not str(key).startswith('init')]  # only for training
    pairs = {key: (_argument(named, key), _argument(options, key)) for key in keys}
    other = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    if other:
        theirs, ours = (', '.join(f'{key}: {pair[i]}' for key, pair in other.items()) for i in (0, 1))
        text = '%s was trained with %s, and is loaded into a network with %s; results may be wrong'
        _log.warning(text, path, printable(theirs)[:200], ours)


def _argument(network: Mapping[str, Any], key: str) -> object:
    value = network[key] if key == 'type' else network_argument(network, key, None)
    return list(value) if isinstance(value, tuple) else value  # YAML has lists alone


def matching_weights(
    net: nn.Module, state: dict[str, Tensor], path: str | Path, strict: bool = True
) -> dict[str, Tensor]:
    """Returns the weights in ``state`` that belong to a network, under its names.

    ``path``, the file, is for messages; ``strict`` and errors are those of :func:`load_weights`.
    """
    own = net.state_dict()
    matching = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    faults = _mismatches(own, state)
    shown = '; '.join(faults[:3]) + (f'; and {len(faults) - 3} more' if len(faults) > 3 else '')
    if faults and (strict or 2 * len(matching) < len(own)):
        raise DBLRError(
            f'{path}: not a checkpoint of this {type(net).__name__}: {len(matching)} of its {len(own)} tensors match '
            f'({shown}); the options under network_g or network_d must be those it was trained with'
        )
    if faults:
        text = '%s: %d of the %d tensors of %s are loaded (%s); the others keep their initial values'
        _log.warning(text, path, len(matching), len(own), type(net).__name__, shown)
    if unusable := next((k for k, v in matching.items() if not _is_usable(v, own[k])), None):
        tensor = matching[unusable]
        raise DBLRError(
            f'{path}: {unusable} is a {tensor.device} tensor of {tensor.dtype} and {tensor.layout}, such as those of '
            'quantised networks; use a file with dense tensors of float32'
        )
    diverged = next((k for k, v in matching.items() if not v.isfinite().all()), None)
    if diverged is not None:
        raise DBLRError(f'{path}: {diverged} holds NaN or infinity: its training had diverged; use an earlier one')
    return matching


def _is_usable(theirs: Tensor, own: Tensor) -> bool:
    """Returns whether a tensor has the values of a network's: the codes of quantised ones would become weights."""
    is_dense = theirs.layout == torch.strided and not theirs.is_meta
    return is_dense and (theirs.is_floating_point() or not own.is_floating_point())


def _mismatches(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    faults = [f'{k} is missing' for k in own if k not in state]
    faults += [f'{k} is unknown' for k in state if k not in own]
    shapes = {k: (tuple(state[k].shape), tuple(v.shape)) for k, v in own.items() if k in state}
    return faults + [f'{k} is {theirs}, not {ours}' for k, (theirs, ours) in shapes.items() if theirs != ours]
