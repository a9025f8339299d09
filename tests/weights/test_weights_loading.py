"""Checkpoints of many formats are loaded, but only into the network that they belong to."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dblr_plugin.archs import DBN, DBLRDiscriminator, DBLRNet, DeepDeblur
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.loading import load_network
from dblr_plugin.weights.checkpoint import load_state_dict, load_weights, tell_other_network


def net(seed: int = 0, **kwargs) -> DBLRNet:
    torch.manual_seed(seed)
    return DBLRNet(**{'num_feat': 16, 'num_block': 1, **kwargs})


def save(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path) if path.suffix == '.safetensors' else torch.save({'params': state}, path)
    return path


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize('wrap', [
    lambda s: {'params': s},
    lambda s: {'params_ema': s},
    lambda s: s,
    lambda s: {'params': {f'module.{k}': v for k, v in s.items()}},
    lambda s: {f'module.{k}': v for k, v in s.items()},
    lambda s: {f'module._orig_mod.{k}': v for k, v in s.items()},
    lambda s: {f'_orig_mod.module.{k}': v for k, v in s.items()},
    lambda s: {k.replace('body.0.', 'body.0._orig_mod.'): v for k, v in s.items()},
    lambda s: {'state_dict': s, 'meta': {'epoch': 3}},
    lambda s: {'state_dict': {'model': s}, 'epoch': 3},
    lambda s: {'net_g': s, 'step': 3},
    lambda s: {'state_dict': {f'model.{k}': v for k, v in s.items()}, 'hyper_parameters': {'lr': 1.0}},
    lambda s: {'state_dict': {f'generator.{k}': v for k, v in s.items()} | {'discriminator.w': torch.ones(1)}},
    lambda s: {'mata': {'epochs': 1, 'iters': 9}, 'model': s, 'optimizer': {'state': {}}, 'lr_scheduler': {'gamma': 1}},
])  # fmt: skip
def test_loads_checkpoints_of_many_programs(tmp_path, wrap):
    theirs, ours = net(0), net(1)
    torch.save(wrap(theirs.state_dict()), tmp_path / 'net.pth')
    load_weights(ours, tmp_path / 'net.pth')
    assert equal(ours, theirs)


def test_param_key_selects_the_weights(tmp_path):
    torch.save({'params': net(0).state_dict(), 'params_ema': net(1).state_dict()}, tmp_path / 'net.pth')
    loaded = net(2)
    load_weights(loaded, tmp_path / 'net.pth', param_key='params_ema')
    assert equal(loaded, net(1))
    with pytest.raises(DBLRError, match=r"no weights under 'net_c'; the file holds \['params', 'params_ema'\]"):
        load_weights(loaded, tmp_path / 'net.pth', param_key='net_c')


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_loads_safetensors(tmp_path, prefix):
    theirs, ours = net(0), net(1)
    path = save({f'{prefix}{k}': v for k, v in theirs.state_dict().items()}, tmp_path / 'net.safetensors')
    load_weights(ours, path, param_key='params_ema')
    assert equal(ours, theirs)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
class TestRefused:
    def test_weights_of_another_network_are_refused(self, tmp_path, suffix):
        path = save(DBLRDiscriminator(num_feat=8, num_fc=8).state_dict(), tmp_path / f'net{suffix}')
        for strict in (True, False):
            with pytest.raises(DBLRError, match=rf'net{suffix}: not a check.* DBLRNet: 0 of its \d+ tensors match'):
                load_weights(net(), path, strict=strict)

    def test_missing_weight_is_named(self, tmp_path, suffix):
        state = net().state_dict()
        del state['conv_l1.bias']
        path = save(state, tmp_path / f'net{suffix}')
        count = len(state)
        with pytest.raises(DBLRError, match=rf'{count} of its {count + 1} tensors match \(conv_l1.bias is missing\)'):
            load_weights(net(), path)

    def test_weights_of_other_network_options_are_refused(self, tmp_path, suffix):
        path = save(net(num_feat=32).state_dict(), tmp_path / f'net{suffix}')
        message = r'conv_l2.weight is \(32, 16, 3, 3, 3\), not \(16, 16, 3, 3, 3\).*network_g'
        with pytest.raises(DBLRError, match=message):
            load_weights(net(), path)

    @pytest.mark.parametrize('value', [float('nan'), float('-inf')])
    def test_nan_and_infinity_are_refused(self, tmp_path, suffix, value):
        state = net().state_dict()
        state['conv_l2.weight'].view(-1)[7] = value
        path = save(state, tmp_path / f'net{suffix}')
        with pytest.raises(DBLRError, match=f'net{suffix}: conv_l2.weight holds NaN or infinity'):
            load_weights(net(), path)


@pytest.mark.parametrize(('changed', 'said'), [
    (lambda v: (10 * v).to(torch.int8), 'torch.int8'),
    (lambda v: v > 0, 'torch.bool'),
    (lambda v: v.to_sparse(), 'torch.sparse_coo'),
    (lambda v: v.to('meta'), 'a meta tensor'),
])  # fmt: skip
def test_tensors_that_are_not_plain_weights_are_refused(tmp_path, changed, said):
    torch.save({'params': {k: changed(v) for k, v in net().state_dict().items()}}, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match=r'net\.pth: conv_l1.weight is a .*use a file with dense') as caught:
        load_weights(net(), tmp_path / 'net.pth')
    assert said in str(caught.value)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_floating_point_types_are_loaded(tmp_path, dtype):
    state = {k: v.to(dtype) for k, v in net().state_dict().items()}
    torch.save({'params': state}, tmp_path / 'net.pth')
    loaded = net(1)
    load_weights(loaded, tmp_path / 'net.pth')
    assert all(torch.equal(v, state[k].to(v.dtype)) for k, v in loaded.state_dict().items())


def test_non_strict_loading_reports_what_does_not_match(tmp_path, caplog):
    colour, luma = net(0, num_in_ch=3, num_out_ch=3), net(1)
    torch.save({'params': colour.state_dict()}, tmp_path / 'net.pth')
    first = luma.conv_l1.weight.clone()
    load_weights(luma, tmp_path / 'net.pth', strict=False)
    assert 'conv_l1.weight is (16, 3,' in caplog.text and 'the others keep their initial values' in caplog.text
    assert torch.equal(luma.conv_l2.weight, colour.conv_l2.weight)
    assert torch.equal(luma.conv_l1.weight, first)


def test_training_state_is_refused(tmp_path):
    torch.save({'iter': 5, 'epoch': 1}, tmp_path / 'state.pth')
    with pytest.raises(DBLRError, match='no weights under'):
        load_state_dict(tmp_path / 'state.pth')


class TestDeepDeblursAuthors:
    """Weights as SeungjunNah/DeepDeblur-PyTorch saves them, such as GOPRO_L1: for frames in [0, 255]."""

    def weights(self, num_feat: int, num_block: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        state: dict[str, Tensor] = {}

        def conv(name: str, channels: int, out: int, scale: float = 1.0) -> None:
            bound = scale / (25 * channels) ** 0.5
            for part, shape in (('weight', (out, channels, 5, 5)), ('bias', (out,))):
                state[f'{name}.{part}'] = (2 * torch.rand(shape, generator=generator) - 1) * bound

        for size, channels in enumerate((6, 6, 3)):  # the full size first
            conv(f'body_models.{size}.body.0', channels, num_feat)
            for block in range(1, num_block + 1):
                conv(f'body_models.{size}.body.{block}.body.0', num_feat, num_feat)
                conv(f'body_models.{size}.body.{block}.body.2', num_feat, num_feat)
            conv(f'body_models.{size}.body.{num_block + 1}', num_feat, 3, scale=4)
        for size in (1, 2):
            conv(f'conv_end_models.{size}.uppath.0', 3, 12, scale=4)
        return state

    def test_published_network_has_our_names_and_shapes(self, tmp_path):
        state = self.weights(64, 19)
        assert sum(v.numel() for v in state.values()) == 11_721_321
        torch.save({'G': state}, tmp_path / 'model-1000.pt')
        with torch.device('meta'):
            own = DeepDeblur().state_dict()
        loaded = load_state_dict(tmp_path / 'model-1000.pt')
        assert {k: v.shape for k, v in loaded.items()} == {k: v.shape for k, v in own.items()}

    @torch.no_grad()
    def test_output_equals_theirs(self, tmp_path):
        """Compared with their forward pass, written out with their names and value range, but with our pyramid."""
        state = self.weights(8, 2)
        torch.save({'G': state}, tmp_path / 'model-1000.pt')
        net = DeepDeblur(num_feat=8, num_block=2, gaussian=True)
        load_weights(net, tmp_path / 'model-1000.pt')
        frame = torch.rand(1, 1, 3, 24, 32, generator=torch.Generator().manual_seed(1))

        def conv(x: Tensor, name: str) -> Tensor:
            return F.conv2d(x, state[f'{name}.weight'], state[f'{name}.bias'], padding=2)

        restored = None
        for size in (2, 1, 0):
            x = net.pyramid(frame[:, 0])[size] * 255 - 127.5
            if restored is not None:
                x = torch.cat([x, F.pixel_shuffle(conv(restored, f'conv_end_models.{size + 1}.uppath.0'), 2)], dim=1)
            x = conv(x, f'body_models.{size}.body.0')
            for block in (1, 2):
                inner = conv(x, f'body_models.{size}.body.{block}.body.0').relu()
                x = x + conv(inner, f'body_models.{size}.body.{block}.body.2')
            restored = conv(x, f'body_models.{size}.body.3')
        assert restored.std() > 5  # of 255
        torch.testing.assert_close(net(frame) * 255, restored + 127.5, atol=1e-2, rtol=0)

    def test_other_depth_is_refused(self, tmp_path):
        torch.save({'G': self.weights(8, 2)}, tmp_path / 'model-1000.pt')
        with pytest.raises(DBLRError, match='not a checkpoint of this DeepDeblur'):
            load_weights(DeepDeblur(num_feat=8, num_block=3), tmp_path / 'model-1000.pt')


class TestSimDeblursDBN:
    """Weights as saved by ljzycmd/SimDeblur, whose network also computes something different from the authors'."""

    # their blocks in their order: kernel, channels in and out
    BLOCKS = {
        'F0': (5, 15, 64),
        'D1': (3, 64, 64), 'F1_1': (3, 64, 128), 'F1_2': (3, 128, 128),
        'D2': (3, 128, 256), 'F2_1': (3, 256, 256), 'F2_2': (3, 256, 256), 'F2_3': (3, 256, 256),
        'D3': (3, 256, 512), 'F3_1': (3, 512, 512), 'F3_2': (3, 512, 512), 'F3_3': (3, 512, 512),
        'U1': (4, 512, 256), 'F4_1': (3, 256, 256), 'F4_2': (3, 256, 256), 'F4_3': (3, 256, 256),
        'U2': (4, 256, 128), 'F5_1': (3, 128, 128), 'F5_2': (3, 128, 64),
        'U3': (4, 64, 64), 'F6_1': (3, 64, 15), 'F6_2': (3, 15, 3),
    }  # fmt: skip

    def weights(self, num_feat: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        state: dict[str, Tensor] = {}
        for name, (kernel, *channels) in self.BLOCKS.items():
            before, after = (c if c in (3, 15) else c * num_feat // 64 for c in channels)
            shape = (before, after) if name[0] == 'U' else (after, before)
            bound = (3 / (before * kernel**2)) ** 0.5
            state[f'{name}.0.weight'] = (2 * torch.rand(*shape, kernel, kernel, generator=generator) - 1) * bound
            for part in ('0.bias', '1.weight', '1.bias', '1.running_mean', '1.running_var'):
                state[f'{name}.{part}'] = torch.rand(after, generator=generator) / 2 + (part in ('1.weight',))
            state[f'{name}.1.num_batches_tracked'] = torch.tensor(7)
        return state

    @pytest.mark.parametrize('prefix', ['', 'module.'])
    def test_names_and_shapes_are_ours(self, tmp_path, prefix):
        state = self.weights(64)
        content = {'meta': {'epochs': 1}, 'optimizer': {}, 'model': {f'{prefix}{k}': v for k, v in state.items()}}
        torch.save(content, tmp_path / 'latest.pth')
        with torch.device('meta'):
            own = DBN(simdeblur=True).state_dict()
        loaded = load_state_dict(tmp_path / 'latest.pth')
        assert {k: v.shape for k, v in loaded.items()} == {k: v.shape for k, v in own.items()}

    @torch.no_grad()
    def test_output_equals_theirs(self, tmp_path):
        """Compared with their forward pass, written out with their names."""
        state = self.weights(8)
        torch.save({'model': state}, tmp_path / 'latest.pth')
        net = DBN(num_feat=8, simdeblur=True).eval()
        load_weights(net, tmp_path / 'latest.pth')
        frames = torch.rand(1, 5, 3, 16, 24, generator=torch.Generator().manual_seed(1))

        def block(name: str, x: Tensor) -> Tensor:
            weight, bias, *norm = (
                state[f'{name}.{p}'] for p in ('0.weight', '0.bias', '1.running_mean', '1.running_var', '1.weight')
            )
            if name[0] == 'U':
                x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
            else:
                x = F.conv2d(x, weight, bias, 2 if name[0] == 'D' else 1, weight.shape[-1] // 2)
            return F.batch_norm(x, *norm, state[f'{name}.1.bias'], eps=1e-3)

        x, skips = frames.flatten(1, 2), []
        for level in (('F0',), ('D1', 'F1_1', 'F1_2'), ('D2', 'F2_1', 'F2_2', 'F2_3'), ('D3', 'F3_1', 'F3_2', 'F3_3')):
            for name in level:
                x = block(name, x).relu()
            skips.append(x)
        for skip, (up, *level) in zip(
            skips[2::-1], (('U1', 'F4_1', 'F4_2', 'F4_3'), ('U2', 'F5_1', 'F5_2'), ('U3', 'F6_1')), strict=True
        ):
            x = (block(up, x).relu() + skip).relu()
            for name in level:
                x = block(name, x).relu()
        torch.testing.assert_close(net(frames), block('F6_2', x) + frames[:, 2])

    def test_authors_dbn_refuses_simdeblurs_weights(self, tmp_path):
        """Names and shapes match, but the restored frames would be wrong."""
        torch.save({'model': self.weights(8)}, tmp_path / 'latest.pth')
        with pytest.raises(DBLRError, match=r"latest.pth: .*SimDeblur's DBN.*network_g.simdeblur: true"):
            load_weights(DBN(num_feat=8), tmp_path / 'latest.pth')


def test_simdeblur_checkpoint_is_read_and_missing_weights_named(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    weights = {'module.L_in.0.weight': torch.zeros(64, 3, 3, 3, 3)}
    torch.save({'mata': {'epochs': 1, 'iters': 9}, 'model': weights, 'optimizer': {}, 'lr_scheduler': {}}, path)
    assert list(load_state_dict(path)) == ['conv_l1.weight']
    with pytest.raises(DBLRError, match='epoch_1.pth: not a checkpoint of this DBLRNet: 0 of its .*is missing'):
        load_network(path)


def test_weights_mixed_with_other_values_are_refused(tmp_path):
    torch.save({'conv_l1.weight': torch.zeros(1), 'epoch': 3}, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match='net.pth: not a checkpoint: it contains other values'):
        load_state_dict(tmp_path / 'net.pth')


class Cached(nn.Module):
    """Has a buffer that is None until the first forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 1, 1))
        self.body[0].register_buffer('cache', None)


def test_buffers_that_are_still_none_are_loaded(tmp_path):
    theirs, ours = Cached(), Cached()
    theirs.body[0].cache = torch.arange(3.0)
    load_weights(ours, save(theirs.state_dict(), tmp_path / 'net.pth'))
    assert equal(ours, theirs)


@pytest.mark.parametrize(
    ('given', 'told'),
    [
        ({'type': 'DBN', 'num_feat': 4}, ''),
        ({'type': 'DBN', 'num_feat': 4, 'causal': False, 'input_skip': False}, ''),
        ({'type': 'DBN', 'num_feat': 4, 'input_skip': True}, 'trained with input_skip: False, .* input_skip: True;'),
        ({'type': 'DBLRNet', 'num_feat': 4}, 'trained with type: DBN, and is loaded into a network with type: DBLRNet'),
    ],
    ids=str,
)
def test_another_network_that_the_weights_fit_is_told(given, told, caplog):
    tell_other_network({'network': {'type': 'DBN', 'num_feat': 4}}, given, 'net.pth')
    assert re.search(told, caplog.text) if told else not caplog.text
