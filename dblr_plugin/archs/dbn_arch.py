"""DBN: an encoder-decoder over stacked frames, the baseline of the VideoDeblurring dataset.

"Deep Video Deblurring for Hand-held Cameras" (Su et al., CVPR 2017); the layers and the names F, D and U follow its
table. Its three variants are options: no alignment (the default), ``flow`` and ``single``. Our additions: any frame
size, by repeating the last row and column up to multiples of 8 (the authors pad with zeros; reflection would need more
than one pixel); Y instead of RGB; other widths; ``causal``. ``simdeblur`` is a public re-implementation with weights.
``input_skip`` is ours too: as published, the frame goes through a sigmoid, so the network must learn even the identity,
and methods that start from it are ahead in short trainings.
"""

from __future__ import annotations

import itertools

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs.traits import restored_index

__all__ = ['DBN', 'rename_simdeblur_dbn_keys']

_EPS = 1e-3  # BatchNorm's, as published


def _conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Builds conv-BN-ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2),
        nn.BatchNorm2d(out_channels, _EPS),
        nn.ReLU(inplace=True),
    )


def _convs(*widths: int) -> nn.Sequential:
    """Builds a chain of conv-BN-ReLU, from each width to the next."""
    return nn.Sequential(*(_conv(before, after) for before, after in itertools.pairwise(widths)))


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Builds a layer that doubles height and width; the skip is added before its ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1), nn.BatchNorm2d(out_channels, _EPS))


@ARCH_REGISTRY.register()
class DBN(nn.Module):
    """Restores one frame of a window.

    Args:
        num_in_ch: Channels of one input frame: 3 for RGB (the paper), 1 for Y.
        num_out_ch: Channels of the restored frame; must equal ``num_in_ch``, as the blurry frame is added.
        num_frame: Frames in a window.
        num_feat: Width of the first layer; the scales have 2, 4 and 8 times this width.
        single: Repeats the frame to restore instead of using its neighbours.
        flow: Makes data sets and video inference align the neighbours to the frame to restore, by optical flow; the
            network itself is the same.
        causal: Restores the last frame of a window instead of the middle one.
        simdeblur: Computes the same as SimDeblur's DBN, for its weights: one more ReLU before each skip is added, and
            no sigmoid after the sum with the blurry frame. The layers are the same.
        input_skip: Starts as the identity, like DBLRNet's option: no sigmoid after the sum with the blurry frame, and
            the last BatchNorm's scale starts at zero. The layers are the same, but weights trained with it need it.

    Raises:
        ValueError: If ``num_feat`` is below 1, or ``num_in_ch`` and ``num_out_ch`` differ.
    """

    size_multiple = 8  # frames are padded to it internally; tiles must start at multiples of it
    receptive_radius = 81

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_frame: int = 5,
        num_feat: int = 64,
        single: bool = False,
        flow: bool = False,
        causal: bool = False,
        simdeblur: bool = False,
        input_skip: bool = False,
    ) -> None:
        super().__init__()
        if num_feat < 1:
            raise ValueError(f'num_feat must be at least 1, and is {num_feat}')
        if num_in_ch != num_out_ch:
            raise ValueError(f'DBN needs num_in_ch ({num_in_ch}) equal to num_out_ch ({num_out_ch})')
        self.num_frame = num_frame
        self.single = single
        self.simdeblur = simdeblur
        self.has_sigmoid = not (simdeblur or input_skip)
        self.restored = restored_index(num_frame, causal)
        stacked = num_in_ch * num_frame
        w1, w2, w4, w8 = (num_feat * factor for factor in (1, 2, 4, 8))

        self.f0 = _conv(stacked, w1, kernel=5)
        self.d1 = _conv(w1, w1, stride=2)
        self.f1_f2 = _convs(w1, w2, w2)
        self.d2 = _conv(w2, w4, stride=2)
        self.f3_f5 = _convs(w4, w4, w4, w4)
        self.d3 = _conv(w4, w8, stride=2)
        self.f6_f8 = _convs(w8, w8, w8, w8)

        self.u1 = _up(w8, w4)
        self.f9_f11 = _convs(w4, w4, w4, w4)
        self.u2 = _up(w4, w2)
        self.f12_f13 = _convs(w2, w2, w1)
        self.u3 = _up(w1, w1)
        self.f14 = _conv(w1, stacked)
        norm = nn.BatchNorm2d(num_out_ch, _EPS)
        self.f15 = nn.Sequential(nn.Conv2d(stacked, num_out_ch, 3, padding=1), norm)
        if input_skip:
            # not the convolution's weights, as BatchNorm would divide their gradient by sqrt(eps)
            nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, num_frame, num_in_ch, h, w)`` in [0, 1], any h and w, to ``(b, num_out_ch, h, w)``.

        The result is in (0, 1) unless ``simdeblur`` or ``input_skip``.

        Raises:
            ValueError: If the windows do not have ``num_frame`` frames.
        """
        if x.dim() != 5 or x.shape[1] != self.num_frame:
            raise ValueError(f'DBN expects (b, {self.num_frame}, c, h, w), got {tuple(x.shape)}')
        h, w = x.shape[-2:]
        blurry = x[:, self.restored]
        if self.single:
            x = blurry.unsqueeze(1).expand_as(x)
        stacked = F.pad(x.flatten(1, 2), (0, -w % self.size_multiple, 0, -h % self.size_multiple), mode='replicate')

        full = self.f0(stacked)
        half = self.f1_f2(self.d1(full))
        quarter = self.f3_f5(self.d2(half))
        eighth = self.f6_f8(self.d3(quarter))
        quarter = self.f9_f11(self._join(self.u1(eighth), quarter))
        half = self.f12_f13(self._join(self.u2(quarter), half))
        out = self.f15(self.f14(self._join(self.u3(half), full)))[..., :h, :w] + blurry
        return torch.sigmoid(out) if self.has_sigmoid else out

    def _join(self, enlarged: Tensor, skip: Tensor) -> Tensor:
        return F.relu((F.relu(enlarged) if self.simdeblur else enlarged) + skip)


def rename_simdeblur_dbn_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of SimDeblur's DBN (``backbone/dbn/dbn.py``) to ours, for ``DBN(simdeblur=True)``."""
    blocks = {'F1_': 'f1_f2', 'F2_': 'f3_f5', 'F3_': 'f6_f8', 'F4_': 'f9_f11', 'F5_': 'f12_f13'}
    places = {'F6_1': 'f14', 'F6_2': 'f15'}
    renamed = {}
    for key, value in state.items():
        place, _, rest = key.partition('.')
        if place[:3] in blocks and place[3:].isdecimal():
            place = f'{blocks[place[:3]]}.{int(place[3:]) - 1}'
        renamed[f'{places.get(place, place.lower())}.{rest}'] = value
    return renamed
