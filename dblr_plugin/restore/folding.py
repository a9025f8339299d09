"""Networks rewritten for inference: the same function, fewer passes over memory."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dblr_plugin.archs.dblrnet_arch import DBLRNet, TimeStackedConv

__all__ = ['StackedConv', 'fold']

_CONVS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d)


def fold(net: nn.Module) -> nn.Module:
    """A frozen copy in eval mode that computes the same, up to rounding, with fewer operations.

    BatchNorm becomes part of the convolution directly before it in a ``nn.Sequential``; elsewhere it stays. The 3D
    layers of a :class:`DBLRNet` get their 2D weights once instead of at each call.

    Args:
        net: Any network; it is not changed.
    """
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, nn.Sequential):
            _fold_batch_norm(module)
    if isinstance(folded, DBLRNet) and isinstance(folded.conv_l1, TimeStackedConv):  # not folded before
        folded.set_submodule('conv_l1', StackedConv(folded.conv_l1, folded.num_frame))
        folded.set_submodule('conv_l2', StackedConv(folded.conv_l2, folded.conv_l2.kernel_size[0]))
    return folded


class StackedConv(nn.Conv2d):
    """A :class:`TimeStackedConv` for windows of a known length, as the plain 2D convolution that it amounts to.

    Its weights can be laid out channels_last, and then so is everything behind it.

    Args:
        conv: The layer to replace.
        time: Frames of its input.
    """

    def __init__(self, conv: TimeStackedConv, time: int) -> None:
        steps = time - conv.kernel_size[0] + 1
        super().__init__(conv.in_channels * time, conv.out_channels * steps, 3, padding=1, groups=conv.groups)
        self.steps = steps
        self.weight, self.bias = (nn.Parameter(value.detach(), requires_grad=False) for value in conv.banded(steps))

    def forward(self, x: Tensor) -> Tensor:
        """``(b, in, t, h, w)`` to ``(b, out, steps, h, w)``."""
        b, _, _, h, w = x.shape
        return super().forward(x.reshape(b, -1, h, w)).view(b, -1, self.steps, h, w)


def _fold_batch_norm(sequence: nn.Sequential) -> None:
    """Replaces each convolution followed by BatchNorm; the BatchNorm's place keeps its number."""
    for (name, conv), (norm_name, norm) in pairwise(list(sequence.named_children())):
        if isinstance(conv, _CONVS) and isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, _ConvTransposeNd))
            setattr(sequence, name, fused.requires_grad_(False))
            setattr(sequence, norm_name, nn.Identity())
