"""LPIPS with weights that are on disk already; nothing is downloaded.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (CVPR 2018), version 0.1 with
AlexNet, which its authors recommend for measuring. Its own weights come with the ``lpips`` package; those of AlexNet
are torchvision's, which the user must have: in torch's cache, where torchvision puts them, or anywhere else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.errors import DBLRError
from dblr_plugin.weights import load_state_dict

__all__ = ['MIN_SIDE', 'PerceptualDistance', 'cached_backbone', 'missing_for_lpips']

MIN_SIDE = 31  # pixels; AlexNet's second pooling has nothing to pool below


def cached_backbone() -> Path:
    """Where torchvision keeps AlexNet's weights, whether they are there or not."""
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir(), 'checkpoints', Path(AlexNet_Weights.IMAGENET1K_V1.url).name)


def missing_for_lpips(backbone: Path | None = None) -> str | None:
    """Why LPIPS cannot be measured here, with the fix; None if it can.

    Args:
        backbone: The file of AlexNet's weights; without it, the one in torch's cache.
    """
    if importlib.util.find_spec('lpips') is None:
        return "the package lpips is not installed: pip install 'dblr_plugin[benchmark]'"
    path = backbone or cached_backbone()
    return None if path.is_file() else f"there is no {path}, torchvision's weights of AlexNet; copy them there"


class PerceptualDistance:
    """LPIPS of frames: 0 for equal ones, and the more the less they look alike.

    Args:
        backbone: AlexNet's weights as torchvision saves them; without it, those in torch's cache.
        device: Where it runs.

    Attributes:
        sha256: The checksum of the backbone's file, for records; torchvision's own begins with 7be5be79.

    Raises:
        DBLRError: :func:`missing_for_lpips` says what is missing, or the file is damaged, or not AlexNet's.
    """

    def __init__(self, backbone: Path | None = None, device: str | torch.device = 'cpu') -> None:
        missing = missing_for_lpips(backbone)
        if missing is not None:
            raise DBLRError(f'LPIPS cannot be measured: {missing}')
        path = backbone or cached_backbone()
        self._net = _lpips(path).to(device)
        self._device = device
        with open(path, 'rb') as file:
            self.sha256 = hashlib.file_digest(file, 'sha256').hexdigest()

    @torch.no_grad()
    def __call__(self, restored: np.ndarray, truth: np.ndarray) -> float:
        """Measures one frame; the network sees RGB in [-1, 1].

        Args:
            restored: BGR ``(h, w, 3)`` in [0, 255], float or uint8.
            truth: The same size and range.

        Raises:
            DBLRError: The frames are too small for AlexNet.
        """
        if min(truth.shape[:2]) < MIN_SIDE:
            raise DBLRError(f'LPIPS needs frames of {MIN_SIDE}x{MIN_SIDE}, not {truth.shape[1]}x{truth.shape[0]}')
        return self._net(self._planes(restored), self._planes(truth)).item()

    def _planes(self, frame: np.ndarray) -> Tensor:
        rgb = np.ascontiguousarray(frame[..., ::-1], dtype=np.float32)
        return torch.from_numpy(rgb).to(self._device).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1


def _lpips(backbone: Path) -> nn.Module:
    import lpips

    weights = load_state_dict(backbone)
    with warnings.catch_warnings(action='ignore'):  # it calls torchvision in a way that is deprecated
        metric = lpips.LPIPS(net='alex', pnet_rand=True, verbose=False)
    # lpips cuts AlexNet into slices, in which layers keep the numbers they have in torchvision's `features`
    names = {name: f'features.{name.split(".", 1)[1]}' for name in metric.net.state_dict()}
    try:
        metric.net.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
    except (KeyError, RuntimeError) as error:
        raise DBLRError(f"{backbone}: not torchvision's weights of AlexNet; name a file such as "
                        f'{cached_backbone().name}') from error  # fmt: skip
    return metric.requires_grad_(False)
