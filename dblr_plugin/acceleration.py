"""Speeds up networks: mixed precision, memory layout, compilation, folding for inference; BatchNorm in training."""

from __future__ import annotations

import copy
import ctypes
import logging
import platform
import types
from contextlib import AbstractContextManager
from itertools import pairwise

import torch
from basicsr.ops.dcn import DeformConvPack, ModulatedDeformConvPack
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm
from torchvision.ops import DeformConv2d

from dblr_plugin.archs.dblrnet_arch import DBLRNet, TimeStackedConv
from dblr_plugin.archs.multi_scale_dblrnet_arch import MultiScaleDBLRNet

__all__ = [
    'AMP_TYPES', 'StackedConv', 'autocast', 'fold', 'freeze_batch_statistics', 'keep_freed_memory', 'plain_copy',
    'prepare_network', 'share_batch_statistics',
]  # fmt: skip

_log = logging.getLogger(__name__)

#: Values of ``train.amp``.
AMP_TYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}

_CONVS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d)
_DEFORMABLE = (DeformConv2d, DeformConvPack, ModulatedDeformConvPack)


def autocast(device: torch.device, amp: str | None) -> AbstractContextManager:
    """Returns the autocast context for a network's forward pass; disabled without ``amp``."""
    return torch.autocast(device.type, dtype=None if amp is None else AMP_TYPES.get(amp), enabled=amp is not None)


def prepare_network(net: nn.Module, channels_last: bool = False, compiled: bool | str = False) -> None:
    """Prepares a network for mixed precision and, if requested, faster layouts and kernels; weights keep their names.

    Args:
        net: A bare network, on its device.
        channels_last: Whether convolution weights, and so the activations, use this memory layout.
        compiled: Whether to run the network through ``torch.compile``, or the compile mode to use.
    """
    for module in net.modules():
        if isinstance(module, _DEFORMABLE):
            module.forward = types.MethodType(_forward_in_fp32, module)  # a method, so that copies call their own
    if channels_last:
        _lay_out_channels_last(net)
    if compiled:
        net.compile(mode=None if compiled is True else compiled)


def share_batch_statistics(net: nn.Module, device_type: str, processes: int) -> nn.Module:
    """Makes BatchNorm use the batches of all processes (``train.sync_bn``); weights and statistics keep their names.

    torch supports this only on GPUs. On other devices, or with one process, the network is unchanged and the log says
    why. The network is bare and on its device, before it is wrapped, laid out or compiled.
    """
    if processes > 1 and device_type == 'cuda':
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    reason = 'one process trains' if processes == 1 else f'torch cannot do it on the {device_type.upper()}'
    _log.warning(
        f'train.sync_bn changes nothing: {reason}. It is for several processes on GPUs (torchrun --nproc_per_node=N).'
    )
    return net


def freeze_batch_statistics(net: nn.Module) -> None:
    """Makes BatchNorm use its running statistics without updating them, until the next call of ``net.train()``."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _forward_in_fp32(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Runs deformable convolution in fp32: CPUs lack a bf16 kernel, and pixel offsets need more than bf16's 8 bits."""
    with torch.autocast(inputs[0].device.type, enabled=False):
        return type(module).forward(module, *(x.float() for x in inputs))


def _lay_out_channels_last(net: nn.Module) -> None:
    # Module.to(memory_format=...) rejects the weights of 3D convolutions, which DBLRNet has
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for conv in convs:
        conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    if convs and any(isinstance(m, nn.Linear) for m in net.modules()):
        # BasicSR's VGG-style discriminators flatten their last convolution's output with view(), which needs this
        convs[-1].register_forward_hook(lambda module, inputs, output: output.contiguous())


# ---------------------------------------------------------------------- inference


def plain_copy(net: nn.Module) -> nn.Module:
    """Returns a copy in eval mode whose weights are plain, also those that weight_norm or spectral_norm compute."""
    # deepcopy refuses the weights that the older functions of these names compute: they depend on others
    computed = {
        id(value): value.detach()
        for module in net.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(net, computed).eval()
    for module in list(copied.modules()):
        if is_parametrized(module):  # not remove_parametrizations, which changes the class, and so the original
            names = [name for name, _ in module.get_submodule('parametrizations').named_children()]
            weights = {name: getattr(module, name).detach() for name in names}
            module.__class__ = type_before_parametrizations(module)
            del module.parametrizations
            for name, weight in weights.items():
                module.register_parameter(name, nn.Parameter(weight))
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
    return copied


def fold(net: nn.Module) -> nn.Module:
    """Returns a frozen float32 copy in eval mode that computes the same, up to rounding, with fewer operations.

    BatchNorm is folded into a convolution directly before it in a plain ``nn.Sequential``; elsewhere it stays, as in
    subclasses that call their layers in another way. The 3D layers of a DBLRNet, of several scales too, build their 2D
    weights once instead of at each call.

    Args:
        net: Any network; it is not changed.
    """
    folded = plain_copy(net).float().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_batch_norm(module)
    if isinstance(folded, (DBLRNet, MultiScaleDBLRNet)):
        for name, time in (('conv_l1', folded.num_frame), ('conv_l2', None)):
            conv = getattr(folded, name)
            if isinstance(conv, TimeStackedConv):  # not folded before
                folded.set_submodule(name, StackedConv(conv, time or conv.kernel_size[0]))
    return folded


class StackedConv(nn.Conv2d):
    """A :class:`TimeStackedConv` for a fixed window length, as the equivalent plain 2D convolution.

    Its weights can be laid out channels_last, and all activations after it then are too.

    Args:
        conv: The layer to replace.
        time: Number of frames in its input.
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
    """Folds BatchNorm into each convolution before it; an identity takes its place, so layer numbers stay the same."""
    # not named_children(), which leaves out a layer's second use: an activation between the two would be overlooked
    for (name, conv), (norm_name, norm) in pairwise(list(sequence._modules.items())):
        if isinstance(conv, _CONVS) and isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            transposed = isinstance(conv, _ConvTransposeNd)
            if transposed and conv.groups > 1:  # torch mixes up the groups' channels
                continue
            fused = fuse_conv_bn_eval(conv, norm, transpose=transposed)
            setattr(sequence, name, fused.requires_grad_(False))
            setattr(sequence, norm_name, nn.Identity())


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX in malloc.h


def keep_freed_memory() -> None:
    """Lets this process reuse the memory of freed tensors; does nothing without glibc.

    Otherwise each large tensor gets new memory, which the system zeroes page by page and takes back after use.
    Restoring in plain PyTorch takes a quarter less CPU time this way (32 features, 720x404, two cores), and up to an
    eighth more memory. OpenVINO manages its own memory, and training showed no measurable gain.
    """
    if platform.libc_ver()[0] == 'glibc':
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
