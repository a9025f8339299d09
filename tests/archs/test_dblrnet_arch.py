"""DBLRNet: parameters, stacked convolutions and outputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dblr_plugin.archs.dblrnet_arch import DBLRNet, TimeStackedConv, rename_simdeblur_keys


def small(**kwargs) -> DBLRNet:
    torch.manual_seed(0)
    return DBLRNet(**{'num_feat': 16, 'num_block': 2, **kwargs})


def num_params(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


class SimDeblurLayout(nn.Module):
    """SimDeblur's public RGB variant with its module names, written from its published layer table."""

    def __init__(self) -> None:
        super().__init__()
        self.L_in = nn.Sequential(
            nn.Conv3d(3, 16, 3, padding=(0, 1, 1)), nn.ReLU(), nn.Conv3d(16, 64, 3, padding=(0, 1, 1)), nn.ReLU()
        )
        self.Ln = nn.Sequential(*[self.Block() for _ in range(15)])
        self.L_out = nn.Sequential(
            nn.Conv2d(64, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 3, 3, padding=1),
        )

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)]
            layers += [nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)]
            self.convs = nn.Sequential(*layers)

        def forward(self, x):
            return x + self.convs(x)

    def forward(self, x):
        start = self.L_in(x.transpose(1, 2)).squeeze(2)
        return self.L_out(start + self.Ln(start))


class TestParameters:
    @pytest.mark.parametrize(
        ('options', 'count'),
        [
            ({}, 1_879_937),  # the paper's setting
            ({'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 15, 'tail_conv': False}, 1_885_411),  # SimDeblur's
            # "15 blocks" and "14 blocks and two more convolutions" are the same size
            ({'num_block': 15, 'tail_conv': False}, 1_879_937),
            # 16 groups in L2 leave a sixteenth of its 27,648 weights
            ({'groups': 16}, 1_879_937 - 27_648 + 27_648 // 16),
        ],
    )
    def test_number_of_parameters(self, options, count):
        assert num_params(DBLRNet(**options)) == count

    def test_published_initialisation(self):
        net = small(init_std=0.01)
        weights = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))])
        assert weights.std().item() == pytest.approx(0.01, rel=0.02)
        assert weights.mean().abs() < 2e-4
        assert small().conv_l2.weight.std() > 0.02

    def test_output_with_simdeblur_weights_equals_simdeblurs(self):
        torch.manual_seed(0)
        theirs = SimDeblurLayout().eval()
        ours = DBLRNet(3, 3, num_block=15, tail_conv=False).eval()
        ours.load_state_dict(rename_simdeblur_keys(theirs.state_dict()))
        x = torch.rand(1, 5, 3, 12, 14)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


class TestTimeStackedConv:
    @pytest.mark.parametrize(('cin', 'cout', 'time', 'frames', 'groups'), [
        (1, 16, 3, 5, 1), (3, 16, 3, 5, 1), (16, 64, 3, 3, 1), (16, 64, 3, 3, 16), (4, 8, 2, 7, 2),
    ])  # fmt: skip
    def test_equals_conv3d(self, cin, cout, time, frames, groups):
        torch.manual_seed(0)
        conv = TimeStackedConv(cin, cout, time, groups).double()
        reference = nn.Conv3d(cin, cout, (time, 3, 3), padding=(0, 1, 1), groups=groups).double()
        reference.load_state_dict(conv.state_dict())
        x = torch.rand(2, cin, frames, 9, 7, dtype=torch.float64)
        torch.testing.assert_close(conv(x), reference(x))

    def test_gradients_equal_conv3d(self):
        torch.manual_seed(0)
        conv = TimeStackedConv(1, 16, 3).double()
        reference = nn.Conv3d(1, 16, 3, padding=(0, 1, 1)).double()
        reference.load_state_dict(conv.state_dict())
        x = torch.rand(2, 1, 5, 8, 8, dtype=torch.float64)
        for layer in (conv, reference):
            layer(x).square().sum().backward()
        torch.testing.assert_close(conv.weight.grad, reference.weight.grad)
        torch.testing.assert_close(conv.bias.grad, reference.bias.grad)

    def test_first_layers_equal_the_papers_triples(self):
        """L1 on each of three overlapping triples, reordered to 16 groups of 3 maps, then L2."""
        net = small().double()
        frames = torch.rand(1, 5, 1, 10, 11, dtype=torch.float64)
        triples = []
        for start in range(3):
            maps = torch.zeros(16, 10, 11, dtype=torch.float64)
            for kernel in range(16):
                for offset in range(3):
                    plane = F.pad(frames[0, start + offset, 0], (1, 1, 1, 1))
                    weight = net.conv_l1.weight[kernel, 0, offset]
                    for dy in range(3):
                        for dx in range(3):
                            maps[kernel] += weight[dy, dx] * plane[dy : dy + 10, dx : dx + 11]
            triples.append(F.relu(maps + net.conv_l1.bias[:, None, None]))
        groups = [torch.stack([triples[t][g] for t in range(3)]) for g in range(16)]
        out = net.conv_l2.bias[:, None, None].repeat(1, 10, 11)
        for g, group in enumerate(groups):
            for t in range(3):
                out = out + F.conv2d(group[None, t : t + 1], net.conv_l2.weight[:, g : g + 1, t], padding=1)[0]
        expected = F.relu(out)

        maps = F.relu(net.conv_l1(frames.transpose(1, 2)))
        torch.testing.assert_close(F.relu(net.conv_l2(maps))[0, :, 0], expected)


class TestForward:
    def test_single_sees_only_the_middle_frame(self):
        multi, single = small().eval(), small(single=True).eval()
        x = torch.rand(1, 5, 1, 8, 8)
        torch.testing.assert_close(single(x), multi(x[:, 2:3].repeat(1, 5, 1, 1, 1)))
        changed = x.clone()
        changed[:, [0, 1, 3, 4]] = 0
        assert torch.equal(single(x), single(changed))

    def test_input_skip_starts_as_the_identity(self):
        x = torch.rand(2, 5, 1, 9, 9)
        assert torch.equal(small(input_skip=True)(x), x[:, 2])
        assert not torch.allclose(small()(x), x[:, 2], atol=0.1)

    @pytest.mark.parametrize('shape', [(1, 3, 1, 8, 8), (5, 1, 8, 8)])
    def test_windows_of_another_shape_are_refused(self, shape):
        with pytest.raises(ValueError, match='expects'):
            small()(torch.rand(shape))

    @pytest.mark.parametrize(
        ('options', 'word'),
        [({'num_frame': 1}, 'num_frame'), ({'groups': 3}, 'groups'), ({'num_in_ch': 3, 'input_skip': True}, 'num_in')],
    )
    def test_contradicting_options_are_refused(self, options, word):
        with pytest.raises(ValueError, match=word):
            DBLRNet(**options)


@pytest.mark.slow
def test_bfloat16_agrees_with_float32():
    """bf16 gradients of nn.Conv3d are wrong on CPUs with AMX in torch 2.15; ours must be right."""
    net = small(num_feat=32)
    x, target = torch.rand(2, 5, 1, 32, 32), torch.rand(2, 1, 32, 32)
    gradients = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            out = net(x)
        F.mse_loss(out.float(), target).backward()
        gradients.append({n: p.grad.flatten().clone() for n, p in net.named_parameters()})
    for name, exact in gradients[0].items():
        # BatchNorm cancels these biases, so that their gradient is rounding noise around zero
        if 'body' in name and name.endswith(('0.bias', '3.bias')):
            continue
        # with rounding alone it is 0.97 or more on such noise; wrong gradients are near 0
        assert F.cosine_similarity(exact, gradients[1][name], dim=0) > 0.95, name
