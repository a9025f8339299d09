import torch
from torch import nn
from torch.nn import functional as F

from dblr_plugin.archs import DeepDeblur


def test_parameters_and_layers():
    net = DeepDeblur()
    assert sum(p.numel() for p in net.parameters()) == 11_721_321  # those of the authors' later code
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 3 * 40 + 2 and {m.kernel_size for m in convs} == {(5, 5)}


@torch.no_grad()
def test_each_size_starts_from_the_blurry_frame_and_the_size_before():
    """A forward pass over a pyramid, as the paper draws it."""
    torch.manual_seed(0)
    net = DeepDeblur(num_feat=8, num_block=2).eval()
    x = torch.rand(2, 5, 3, 16, 24)
    pyramid = [x[:, 2] - 0.5]
    for _ in range(2):
        blocks = pyramid[-1].unfold(2, 2, 2).unfold(3, 2, 2)
        pyramid.append(blocks.mean(dim=(-1, -2)))
    restored = None
    for size, scale, up in zip(
        pyramid[::-1], (net.coarse, net.middle, net.fine), (None, net.coarse_up, net.middle_up), strict=True
    ):
        parts = [size] if restored is None else [size, F.pixel_shuffle(up[0](restored), 2)]
        feat = scale[0](torch.cat(parts, dim=1))
        for block in scale[1:-1]:
            first, _, second = block.convs
            feat = feat + second(first(feat).relu())
        restored = scale[-1](feat)
    torch.testing.assert_close(net(x), restored + 0.5)
