"""Loads weights from various trainers into the matching network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from basicsr.utils import get_root_logger
from torch import Tensor, nn

from dblr_plugin.archs.dblrnet_arch import rename_simdeblur_keys
from dblr_plugin.archs.dbn_arch import DBN, rename_simdeblur_dbn_keys
from dblr_plugin.archs.deepdeblur_arch import rename_authors_keys
from dblr_plugin.errors import DBLRError
from dblr_plugin.weights.checkpoint import read_checkpoint

__all__ = ['fill', 'load_state_dict', 'load_weights', 'matching_weights', 'named_weights', 'translated']

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
        param_key: ``params``, ``params_ema`` (falls back to ``params``), or None for bare weights.

    Raises:
        DBLRError: There are no weights under that key.
    """
    return translated(named_weights(read_checkpoint(path), path, param_key))


def named_weights(content: dict, path: str | Path, param_key: str | None = 'params') -> dict[str, Tensor]:
    """Returns the weights in what :func:`~dblr_plugin.weights.checkpoint.read_checkpoint` read from ``path``.

    They have the names of the network that was saved. ``param_key`` and errors are those of :func:`load_state_dict`.
    """
    while not all(isinstance(v, Tensor) for v in content.values()):
        groups = [k for k, v in content.items() if isinstance(v, dict)]
        key = next((k for k in (param_key, *_GROUPS) if k in groups), None)
        if key is None:
            if any(isinstance(v, Tensor) for v in content.values()):
                raise DBLRError(f'{path}: not a checkpoint: it contains other values besides weights')
            raise DBLRError(f'{path}: no weights under {param_key!r}; the file holds {sorted(map(str, content))[:8]}')
        content = content[key]
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
    matching = matching_weights(net, _unwrapped(translated(theirs), net.state_dict()), path, strict)
    net.load_state_dict(matching, strict=strict)


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
        get_root_logger().warning(text, path, len(matching), len(own), type(net).__name__, shown)
    diverged = next((k for k, v in matching.items() if not v.isfinite().all()), None)
    if diverged is not None:
        raise DBLRError(f'{path}: {diverged} holds NaN or infinity: its training had diverged; use an earlier one')
    return matching


def _mismatches(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    faults = [f'{k} is missing' for k in own if k not in state]
    faults += [f'{k} is unknown' for k in state if k not in own]
    shapes = {k: (tuple(state[k].shape), tuple(v.shape)) for k, v in own.items() if k in state}
    return faults + [f'{k} is {theirs}, not {ours}' for k, (theirs, ours) in shapes.items() if theirs != ours]
