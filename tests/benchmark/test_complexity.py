"""Multiply-adds are compared with torch's counter and with sums over the layers in the papers."""

import math
import sys
import warnings

import pytest
import torch
from basicsr.archs.edvr_arch import EDVR
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dblr_plugin.archs import BlurryInput, DBLRNet
from dblr_plugin.archs.dblrnet_arch import TimeStackedConv
from dblr_plugin.archs.dbn_arch import DBN
from dblr_plugin.archs.deepdeblur_arch import DeepDeblur
from dblr_plugin.archs.untrained_arch import FourierBurstAccumulation
from dblr_plugin.benchmark.complexity import multiply_adds
from dblr_plugin.errors import DBLRError


def flops_of_torch(net: nn.Module, shape: tuple[int, ...]) -> int:
    """torch counts two per multiply-add of convolutions and matrix products, but no deformable convolutions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(shape))
    return counter.get_total_flops()


def macs_of(net: nn.Module, shape: tuple[int, ...]) -> int:
    return sum(multiply_adds(net, shape).values())


def dblrnet_macs(pixels: int, feat: int, block: int, groups: int = 1, channels: int = 1) -> int:
    """L1 computes 16 maps for each of three frame triples, L2 combines the three results."""
    first = 3 * 27 * channels * 16
    second = 27 * 16 // groups * feat
    body = (block + 1) * 2 * 9 * feat * feat  # with L31-L32
    last = 9 * (feat * 4 * feat + 4 * feat * 4 * feat + 4 * feat * channels)
    return pixels * (first + second + body + last)


class TestDBLRNet:
    def test_macs_of_the_papers_network(self):
        assert sum(p.numel() for p in DBLRNet().parameters()) == 1_879_937
        macs = dblrnet_macs(16 * 24, feat=64, block=14)
        assert multiply_adds(DBLRNet(), (1, 5, 1, 16, 24)) == {'conv': macs}

    @pytest.mark.parametrize(('groups', 'channels'), [(1, 3), (16, 1)])
    def test_macs_of_colour_and_groups(self, groups, channels):
        net = DBLRNet(channels, channels, num_feat=16, num_block=1, groups=groups)
        assert macs_of(net, (1, 5, channels, 17, 20)) == dblrnet_macs(17 * 20, 16, 1, groups, channels)

    def test_zeros_of_stacked_weights_are_not_counted(self):
        net, shape = DBLRNet(num_feat=16, num_block=1), (1, 5, 1, 16, 16)
        # in each of the three triples, the weights of two of the five frames are zero; L2 has no zeros
        zeros = 16 * 16 * 9 * (3 * 16) * 2
        assert macs_of(net, shape) == flops_of_torch(net, shape) // 2 - zeros

    def test_network_is_not_changed(self):
        net = DBLRNet(num_feat=16, num_block=1).train()
        multiply_adds(net, (1, 5, 1, 16, 16))
        assert type(net.conv_l1) is TimeStackedConv and net.training
        assert all(module.training and not module._forward_hooks for module in net.modules())
        assert net.body[0].convs[1].num_batches_tracked == 0


@pytest.mark.slow
def test_macs_of_dbn_equal_its_table():
    h, w = 24, 16  # what it pads 20x10 to

    def conv(inputs, outputs, scale, kernel=3):
        return kernel * kernel * inputs * outputs * (h // scale) * (w // scale)

    macs = conv(15, 64, 1, kernel=5)
    macs += conv(64, 64, 2) + conv(64, 128, 2) + conv(128, 128, 2)
    macs += conv(128, 256, 4) + 3 * conv(256, 256, 4)
    macs += conv(256, 512, 8) + 3 * conv(512, 512, 8)
    # a transposed convolution applies each weight once for each pixel of its input
    macs += conv(512, 256, 8, kernel=4) + 3 * conv(256, 256, 4)
    macs += conv(256, 128, 4, kernel=4) + conv(128, 128, 2) + conv(128, 64, 2)
    macs += conv(64, 64, 2, kernel=4) + conv(64, 15, 1) + conv(15, 3, 1)
    assert macs_of(DBN(), (1, 5, 3, 20, 10)) == macs == flops_of_torch(DBN(), (1, 5, 3, 20, 10)) // 2
    assert sum(p.numel() for p in DBN().parameters()) == 15_305_291


def test_macs_of_deepdeblur_equal_torchs():
    net, shape = DeepDeblur(num_feat=8, num_block=2), (1, 1, 3, 18, 20)
    assert macs_of(net, shape) == flops_of_torch(net, shape) // 2


@pytest.mark.slow
def test_macs_of_edvr_operators():
    feat, h, w = 16, 64, 80
    net = EDVR(num_feat=feat, num_extract_block=1, num_reconstruct_block=1, hr_in=True, with_predeblur=True)
    found = multiply_adds(net, (1, 5, 3, h, w))
    assert found['conv'] == flops_of_torch(net, (1, 5, 3, h, w)) // 2
    # for each of five frames: three pyramid levels, the first at a quarter of the size, and the cascade
    places = 5 * sum(h // scale * (w // scale) for scale in (4, 8, 16, 4))
    assert found['deform_conv2d'] == places * 9 * (feat * feat + 4 * feat)
    # between levels: offsets and features; in predeblur and attention: features
    doubled = [5 * 2 * feat, 5 * 2 * feat, 5 * feat, 5 * feat, feat, feat]
    sizes = [h // scale * (w // scale) for scale in (8, 4, 8, 4, 8, 4)]
    values = sum(channels * size for channels, size in zip(doubled, sizes, strict=True))
    assert found['upsample_bilinear2d'] == 4 * values
    assert len(found) == 3


@pytest.mark.parametrize(('height', 'width', 'blocks', 'side'), [(32, 64, 3, 32), (45, 32, 2, 32), (20, 20, 1, 20)])
def test_macs_of_fourier_burst_accumulation(height, width, blocks, side):
    found = macs_of(FourierBurstAccumulation(block_size=32), (1, 5, 3, height, width))
    transforms = 5 * 3 + 3 + 2 * 5  # planes, result, and forward and back for the frames' magnitudes
    assert found == pytest.approx(blocks * transforms * 1.25 * side**2 * math.log2(side**2), abs=3)  # real input


def test_identity_has_no_macs():
    assert multiply_adds(BlurryInput(), (1, 5, 3, 16, 16)) == {}


class Mixed(nn.Module):
    """Operators that torch's counter knows besides convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(6, 12, 4, stride=2, groups=3)
        self.fully = nn.Linear(12, 7)

    def forward(self, x):
        maps = F.adaptive_avg_pool2d(self.deconv(x.flatten(1, 2)).sigmoid(), 5).flatten(2)
        attention = (maps @ maps.transpose(1, 2)).softmax(-1)
        return self.fully(torch.bmm(attention, maps).transpose(1, 2))


def test_macs_of_matrix_products_and_grouped_transposed_convolutions():
    assert macs_of(Mixed(), (1, 2, 3, 8, 9)) == flops_of_torch(Mixed(), (1, 2, 3, 8, 9)) // 2


class Sampled(nn.Module):
    def forward(self, x):
        frame = torch.fft.irfft2(torch.fft.rfft2(x[:, 0]))
        return F.grid_sample(frame, torch.zeros(1, 5, 7, 2), align_corners=False)


def test_macs_of_real_transforms_and_sampling():
    found = multiply_adds(Sampled(), (1, 2, 3, 8, 16))
    assert found['fft_rfft2'] == found['fft_irfft2'] == 3 * 1.25 * 128 * 7
    assert found['grid_sampler'] == 4 * 3 * 5 * 7


class Unknown(nn.Module):
    def forward(self, x):
        frame = x[0, 0]
        return torch.baddbmm(frame, frame, frame).cumsum(0)


def test_unknown_operators_are_refused(capfd, caplog):
    with (
        warnings.catch_warnings(action='error'),
        pytest.raises(DBLRError, match='Unknown: .*aten::baddbmm, aten::cumsum;'),
    ):
        multiply_adds(Unknown(), (1, 5, 3, 16, 16))
    assert capfd.readouterr() == ('', '') and not caplog.records


def test_missing_mmengine_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmengine.analysis', None)
    with pytest.raises(DBLRError, match=r"pip install 'dblr_plugin\[benchmark\]'"):
        multiply_adds(BlurryInput(), (1, 5, 3, 16, 16))
