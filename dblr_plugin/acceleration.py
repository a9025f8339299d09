"""Networks made faster: mixed precision, memory layout, compilation, folding for inference; BatchNorm in training."""

from __future__ import annotations

import copy
import ctypes
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise

import torch
from basicsr.ops.dcn import DeformConvPack, ModulatedDeformConvPack
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import DeformConv2d

from dblr_plugin.archs.dblrnet_arch import DBLRNet, TimeStackedConv

__all__ = [
    'AMP_TYPES', 'StackedConv', 'autocast', 'fold', 'freeze_batch_statistics', 'keep_freed_memory', 'prepare_network',
    'share_batch_statistics',
]  # fmt: skip

#: What ``train.amp`` may be.
AMP_TYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}

_CONVS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d)
_DEFORMABLE = (DeformConv2d, DeformConvPack, ModulatedDeformConvPack)


def autocast(device: torch.device, amp: str | None) -> AbstractContextManager:
    """The context in which a network's forward pass runs; without ``amp`` it changes nothing."""
    return torch.autocast(device.type, dtype=None if amp is None else AMP_TYPES.get(amp), enabled=amp is not None)


def prepare_network(net: nn.Module, channels_last: bool = False, compiled: bool | str = False) -> None:
    """Makes a network fit for mixed precision and, as asked, for faster layouts and kernels; weights keep their names.

    Args:
        net: A bare network, on its device.
        channels_last: Whether convolution weights, and so what flows between the layers, get that layout.
        compiled: Whether calls of the network go through ``torch.compile``, or in which of its modes.
    """
    for module in net.modules():
        if isinstance(module, _DEFORMABLE):
            module.forward = _in_fp32(module.forward)
    if channels_last:
        _lay_out_channels_last(net)
    if compiled:
        net.compile(mode=None if compiled is True else compiled)


def share_batch_statistics(net: nn.Module, device_type: str, processes: int) -> nn.Module:
    """Makes BatchNorm see the batch of all processes (``train.sync_bn``); weights and statistics keep their names.

    torch does that on GPUs alone. Elsewhere, and where there is one process, the network stays and the log says why.

    Args:
        net: A bare network, on its device, before it is wrapped, laid out or compiled.
        device_type: ``cuda`` or ``cpu``.
        processes: How many train together.
    """
    if processes > 1 and device_type == 'cuda':
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    reason = 'one process trains' if processes == 1 else f'torch cannot do it on the {device_type.upper()}'
    get_root_logger().warning(
        f'train.sync_bn changes nothing: {reason}. It is for several processes on GPUs (torchrun --nproc_per_node=N).'
    )
    return net


def freeze_batch_statistics(net: nn.Module) -> None:
    """Makes BatchNorm use its running statistics and leave them alone, until the network is put into training mode."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _in_fp32(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Deformable convolution has no bf16 kernel on CPUs, and its offsets, in pixels, need more than bf16's 8 bits."""

    def wrapped(*inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, enabled=False):
            return forward(*(x.float() for x in inputs))

    return wrapped


def _lay_out_channels_last(net: nn.Module) -> None:
    # Module.to(memory_format=...) refuses the weights of 3D convolutions, which DBLRNet has
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for conv in convs:
        conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    if convs and any(isinstance(m, nn.Linear) for m in net.modules()):
        # BasicSR's VGG-style discriminators flatten what their last convolution gives with view(), which needs this
        convs[-1].register_forward_hook(lambda module, inputs, output: output.contiguous())


# ---------------------------------------------------------------------- inference


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


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_ of malloc.h


def keep_freed_memory() -> None:
    """Lets this process keep the memory of freed tensors for the next ones; does nothing where glibc is not in use.

    Otherwise each large tensor is new memory, which the system fills with zeros page by page, and gives back after use.
    Restoring in plain PyTorch takes a quarter less processor time this way (32 features, 720x404, two cores), and up to
    an eighth more memory. OpenVINO manages its own, and in training no gain was measurable.
    """
    if platform.libc_ver()[0] == 'glibc':
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
