import pytest
import torch
from basicsr.utils import tensor2img
from torch import nn

from dblr_plugin.archs import BlurryInput
from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.colour import rgb_to_y, to_network_colour
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.frame_restorer import FrameRestorer


def traits(channels: int) -> NetworkTraits:
    return NetworkTraits(channels, num_frame=5, restores=2, flow=False)


class NeedsMultiples(nn.Module):
    """The middle frame, if h and w are multiples of 16."""

    def forward(self, x):
        assert x.shape[-2] % 16 == 0 and x.shape[-1] % 16 == 0
        return x[:, 2]


@pytest.mark.parametrize('channels', [1, 3])
def test_identity_network_returns_the_same_picture(channels):
    picture = torch.randint(0, 256, (1, 5, 3, 21, 34), generator=torch.Generator().manual_seed(0))
    restored = FrameRestorer(BlurryInput(channels), traits(channels))(picture / 255)
    assert (tensor2img(restored, rgb2bgr=False) == picture[0, 2].permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize('size', [(16, 32), (1, 1), (17, 31), (45, 80)])
@pytest.mark.parametrize('channels', [1, 3])
def test_pads_and_cuts_back(size, channels):
    window = torch.rand(2, 5, 3, *size)
    assert torch.equal(FrameRestorer(NeedsMultiples(), traits(channels), size_multiple=16)(window), window[:, 2])


def test_keeps_the_colour_of_the_blurry_frame():
    class Brighter(nn.Module):
        def forward(self, x):
            return x[:, 2] + 0.1

    window = torch.rand(1, 5, 3, 8, 8)
    change = FrameRestorer(Brighter(), traits(1))(window) - window[:, 2]
    # a new Y alone adds the same grey to all channels
    torch.testing.assert_close(change, torch.full_like(change, 0.1 * 255 / 219))


def test_network_colour():
    rgb = torch.rand(2, 5, 3, 8, 9)
    y = rgb_to_y(rgb)
    assert to_network_colour(rgb, 3) is rgb and to_network_colour(y, 1) is y
    assert torch.equal(to_network_colour(rgb, 1), y)
    with pytest.raises(DBLRError, match='network_g takes 3 channels; remove y_only, or set num_in_ch: 1'):
        to_network_colour(y, 3)
