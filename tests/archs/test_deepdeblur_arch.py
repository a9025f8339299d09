"""DeepDeblur: parameters, sizes and pyramid."""

import numpy as np
import pytest
import torch
from skimage.transform import pyramid_gaussian
from torch import nn
from torch.nn import functional as F

from dblr_plugin.archs import DeepDeblur


def test_parameters_and_layers():
    net = DeepDeblur()
    assert sum(p.numel() for p in net.parameters()) == 11_721_321  # as in the authors' later code
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 3 * 40 + 2 and {m.kernel_size for m in convs} == {(5, 5)}


@torch.no_grad()
def test_each_size_uses_the_blurry_frame_and_the_previous_size():
    """Compared with a forward pass over a pyramid, as in the paper's figure."""
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


@torch.no_grad()
@pytest.mark.parametrize('gaussian', [False, True])
def test_returned_sizes_are_the_intermediate_outputs(gaussian):
    torch.manual_seed(0)
    net = DeepDeblur(num_feat=8, num_block=1, gaussian=gaussian).eval()
    x = torch.rand(2, 1, 3, 14, 24)
    full, half, quarter = net(x, sizes=True)
    assert torch.equal(full, net(x)) and full.shape == x[:, 0].shape
    assert half.shape == (2, 3, 8, 12) and quarter.shape == (2, 3, 4, 6)
    blurry = net.pyramid(F.pad(x[:, 0], (0, 0, 0, 2), mode='replicate'))
    torch.testing.assert_close(quarter, net.coarse(blurry[2] - 0.5) + 0.5)
    torch.testing.assert_close(half, net.middle(torch.cat([blurry[1] - 0.5, net.coarse_up(quarter - 0.5)], 1)) + 0.5)


def test_gaussian_pyramid_equals_scikit_images():
    """Compared without the borders, which scikit-image mirrors."""
    image = np.random.default_rng(0).random((64, 80, 3), dtype=np.float32)
    expected = list(pyramid_gaussian(image, 2, channel_axis=-1))
    ours = DeepDeblur(num_feat=1, num_block=0, gaussian=True).pyramid(torch.from_numpy(image).permute(2, 0, 1)[None])
    for size, margin in zip((1, 2), (2, 3), strict=True):
        found = ours[size][0].permute(1, 2, 0).numpy()[margin:-margin, margin:-margin]
        np.testing.assert_allclose(found, expected[size][margin:-margin, margin:-margin], atol=1e-5)
