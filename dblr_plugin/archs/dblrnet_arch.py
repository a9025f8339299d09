"""DBLRNet: spatio-temporal video deblurring with 3D convolutions.

"Adversarial Spatio-Temporal Learning for Video Deblurring" (arXiv 1804.00533, IEEE TIP 2019). The input is five
consecutive, unaligned frames. Two 3D layers merge them, and 2D residual blocks at full resolution restore the middle
frame. The authors published no code. Where the paper leaves details open, we made these choices:

- L1 and L2 are followed by ReLU, and every convolution has a bias.
- L31-L32 (``tail_conv``) have no skip of their own; the long skip starts at L2's output.
- ``groups`` of L2 is an option: the paper's "16 groups" can also mean a grouped convolution.
- ``input_skip`` is ours: the network predicts the difference from the middle frame and starts as the identity.
"""

from __future__ import annotations

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.traits import restored_index

__all__ = ['DBLRNet', 'TimeStackedConv', 'draw_weights', 'rename_simdeblur_keys']


class TimeStackedConv(nn.Conv3d):
    """3D convolution, unpadded in time and padded by 1 in space, computed as a single 2D convolution.

    Time is stacked into the channels, and the 3D weight is laid out as a banded 2D weight. The parameters keep their 3D
    shape ``(out, in / groups, kt, 3, 3)``, so checkpoints match those of ``nn.Conv3d``. The 2D form is faster, and in
    torch 2.15, bf16 gradients of ``Conv3d`` are wrong on CPUs with AMX.
    """

    bias: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, time: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, (time, 3, 3), padding=(0, 1, 1), groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, in, t, h, w)`` to ``(b, out, t - kt + 1, h, w)``."""
        b, _, t, h, w = x.shape
        steps = t - self.kernel_size[0] + 1
        out = F.conv2d(x.reshape(b, -1, h, w), *self.banded(steps), padding=1, groups=self.groups)
        return out.view(b, self.out_channels, steps, h, w)

    def banded(self, steps: int) -> tuple[Tensor, Tensor]:
        """Returns weight and bias of the 2D convolution for ``steps`` output time steps."""
        # one copy of the kernel per output step, shifted along the input's time axis, zero elsewhere
        banded = torch.stack([F.pad(self.weight, (0, 0, 0, 0, s, steps - 1 - s)) for s in range(steps)], dim=1)
        if torch.compiler.is_dynamo_compiling():  # on CPUs, torch 2.11's inductor accepts no view as a bias
            bias = self.bias[torch.arange(self.out_channels * steps, device=self.bias.device) // steps]
        else:
            bias = self.bias.repeat_interleave(steps)
        return banded.reshape(self.out_channels * steps, -1, 3, 3), bias


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN with an identity skip (L3-L30)."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.convs = conv_pair(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, num_feat, h, w)`` to the same shape."""
        return x + self.convs(x)


def conv_pair(num_feat: int) -> nn.Sequential:
    """Builds conv-BN-ReLU-conv-BN."""
    return nn.Sequential(
        nn.Conv2d(num_feat, num_feat, 3, padding=1),
        nn.BatchNorm2d(num_feat),
        nn.ReLU(inplace=True),
        nn.Conv2d(num_feat, num_feat, 3, padding=1),
        nn.BatchNorm2d(num_feat),
    )


def draw_weights(net: nn.Module, std: float) -> None:
    """Draws the weights of convolutions and linear layers from N(0, std^2) and sets their biases to zero."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@ARCH_REGISTRY.register()
class DBLRNet(nn.Module):
    """The generator of DBLRGAN.

    Args:
        num_in_ch: Channels of one input frame: 1 for Y (the paper), 3 for RGB.
        num_out_ch: Channels of the restored frame.
        num_frame: Frames in a window, at least 3. L1 spans three frames, L2 all of L1's time steps.
        num_feat: Width of the residual blocks; the reconstruction layers are four times as wide.
        num_block: Residual blocks (14 in the paper).
        groups: Groups of L2's convolution; must divide 16 and ``num_feat``.
        tail_conv: Adds L31-L32 between the last block and the long skip.
        single: Repeats the frame to restore instead of using its neighbours (the paper's "single" variant).
        input_skip: Adds the blurry frame to the output and starts as the identity. Off in the paper.
        causal: Restores the last frame of a window, for live use, instead of the middle one (the paper).
        init_std: Standard deviation of normally distributed initial weights (0.01 is published); None for PyTorch's
            default initialisation.

    Raises:
        ValueError: If an argument is out of range or arguments contradict each other.
    """

    num_maps = 16

    def __init__(
        self,
        num_in_ch: int = 1,
        num_out_ch: int = 1,
        num_frame: int = 5,
        num_feat: int = 64,
        num_block: int = 14,
        groups: int = 1,
        tail_conv: bool = True,
        single: bool = False,
        input_skip: bool = False,
        causal: bool = False,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        if num_frame < 3:
            raise ValueError(f'DBLRNet needs windows of at least 3 frames, num_frame is {num_frame}')
        if num_feat < 1 or num_block < 0:
            raise ValueError(f'num_feat must be at least 1, num_block at least 0; they are {num_feat} and {num_block}')
        if groups < 1 or self.num_maps % groups or num_feat % groups:
            raise ValueError(f'groups must divide {self.num_maps} and num_feat ({num_feat}), groups is {groups}')
        if input_skip and num_in_ch != num_out_ch:
            raise ValueError(f'input_skip needs num_in_ch ({num_in_ch}) equal to num_out_ch ({num_out_ch})')
        self.num_frame = num_frame
        self.single = single
        self.input_skip = input_skip
        self.restored = restored_index(num_frame, causal)
        self.receptive_radius = 5 + 2 * (num_block + tail_conv)  # one pixel per 3x3 layer
        self.conv_l1 = TimeStackedConv(num_in_ch, self.num_maps, 3)
        self.conv_l2 = TimeStackedConv(self.num_maps, num_feat, num_frame - 2, groups)
        blocks = [ResidualBlock(num_feat) for _ in range(num_block)]
        self.body = nn.Sequential(*blocks, conv_pair(num_feat)) if tail_conv else nn.Sequential(*blocks)
        self.reconstruction = nn.Sequential(
            nn.Conv2d(num_feat, num_feat * 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_feat * 4, num_feat * 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_feat * 4, num_out_ch, 3, padding=1),
        )
        if init_std is not None:
            draw_weights(self, init_std)
        if input_skip:
            for parameter in self.reconstruction[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, num_frame, num_in_ch, h, w)``, any h and w, to ``(b, num_out_ch, h, w)``.

        Raises:
            ValueError: If the windows do not have ``num_frame`` frames.
        """
        if x.dim() != 5 or x.shape[1] != self.num_frame:
            raise ValueError(f'DBLRNet expects (b, {self.num_frame}, c, h, w), got {tuple(x.shape)}')
        blurry = x[:, self.restored]
        if self.single:
            x = blurry.unsqueeze(1).expand_as(x)
        maps = F.relu(self.conv_l1(x.transpose(1, 2)))
        feat = F.relu(self.conv_l2(maps).squeeze(2))  # OpenVINO is slower with ReLU before squeeze
        out = self.reconstruction(feat + self.body(feat))
        return out + blurry if self.input_skip else out


def rename_simdeblur_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of SimDeblur's DBLRNet (``L_in``, ``Ln``, ``L_out``) to ours.

    The result fits ``DBLRNet(num_in_ch=3, num_out_ch=3, num_block=15, tail_conv=False)``.
    """
    prefixes = {'L_in.0.': 'conv_l1.', 'L_in.2.': 'conv_l2.', 'Ln.': 'body.', 'L_out.': 'reconstruction.'}
    renamed = {}
    for key, value in state.items():
        old = next((p for p in prefixes if key.startswith(p)), '')
        renamed[prefixes.get(old, '') + key[len(old) :]] = value
    return renamed
