"""DBN: parameters, layers and skip connections."""

import pytest
import torch
from torch import nn

from dblr_plugin.archs import DBN

# the published table: kernel, stride, channels in and out
TABLE = [
    (5, 1, 15, 64),
    (3, 2, 64, 64), (3, 1, 64, 128), (3, 1, 128, 128),
    (3, 2, 128, 256), (3, 1, 256, 256), (3, 1, 256, 256), (3, 1, 256, 256),
    (3, 2, 256, 512), (3, 1, 512, 512), (3, 1, 512, 512), (3, 1, 512, 512),
    (4, 2, 512, 256), (3, 1, 256, 256), (3, 1, 256, 256), (3, 1, 256, 256),
    (4, 2, 256, 128), (3, 1, 128, 128), (3, 1, 128, 64),
    (4, 2, 64, 64), (3, 1, 64, 15), (3, 1, 15, 3),
]  # fmt: skip


@pytest.fixture(scope='module')
def paper() -> DBN:
    return DBN()


def test_number_of_parameters(paper):
    assert sum(p.numel() for p in paper.parameters()) == 15_305_291


def test_layers_follow_the_table(paper):
    convs = [m for m in paper.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(m.kernel_size[0], m.stride[0], m.in_channels, m.out_channels) for m in convs] == TABLE
    assert [isinstance(m, nn.ConvTranspose2d) for m in convs] == [kernel == 4 for kernel, *_ in TABLE]
    norms = [m for m in paper.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_features for m in norms] == [out for *_, out in TABLE] and {m.eps for m in norms} == {1e-3}


@torch.no_grad()
def test_skip_connections_follow_the_table():
    """Compared with a forward pass written out layer by layer."""
    torch.manual_seed(0)
    net = DBN(num_feat=4).eval()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)]
    pairs = iter(zip(layers[::2], layers[1::2], strict=True))
    x = torch.rand(1, 5, 3, 16, 24)

    def run(x, skip=0, relu=True):
        conv, norm = next(pairs)
        out = norm(conv(x)) + skip
        return out.relu() if relu else out

    f0 = out = run(x.flatten(1, 2))
    for _ in range(3):
        out = run(out)
    f2 = out
    for _ in range(4):
        out = run(out)
    f5 = out
    for _ in range(4):
        out = run(out)
    for skip, plain in ((f5, 3), (f2, 2), (f0, 1)):
        out = run(out, skip)
        for _ in range(plain):
            out = run(out)
    torch.testing.assert_close(net(x), torch.sigmoid(run(out, x[:, 2], relu=False)))


@torch.no_grad()
def test_single_repeats_the_restored_frame():
    torch.manual_seed(0)
    net, single = DBN(num_feat=4, causal=True).eval(), DBN(num_feat=4, causal=True, single=True).eval()
    single.load_state_dict(net.state_dict())
    x = torch.rand(1, 5, 3, 9, 9)
    assert torch.equal(single(x), net(x[:, 4:].expand_as(x)))


def test_input_skip_starts_as_the_identity(paper):
    net = DBN(input_skip=True)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in paper.state_dict().items()}
    x = torch.rand(2, 5, 3, 16, 24).round(decimals=1)  # includes 0 and 1, which no sigmoid returns
    assert torch.equal(net(x), x[:, 2]) and torch.equal(net.eval()(x), x[:, 2])
    assert not torch.allclose(paper(x), x[:, 2], atol=0.1)


@pytest.mark.slow
def test_input_skip_learns_from_the_identity():
    torch.manual_seed(0)
    net = DBN(num_feat=4, input_skip=True)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    x = torch.rand(4, 5, 3, 16, 16)
    truth = x.mean(1)
    losses = []
    for _ in range(40):
        losses.append((net(x) - truth).square().mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0].item() == pytest.approx((x[:, 2] - truth).square().mean().item())
    assert losses[-1] < losses[0] / 2


def test_unequal_channels_and_other_windows_are_refused():
    with pytest.raises(ValueError, match='equal to num_out_ch'):
        DBN(num_in_ch=3, num_out_ch=1)
    with pytest.raises(ValueError, match=r'expects \(b, 5, c, h, w\)'):
        DBN(num_feat=4)(torch.rand(1, 3, 3, 8, 8))
