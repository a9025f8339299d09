"""Weights of any kind, loaded only into the network they belong to."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dblr_plugin.archs import DBLRDiscriminator, DBLRNet
from dblr_plugin.errors import DBLRError
from dblr_plugin.inference.network import load_network
from dblr_plugin.weights import load_state_dict, load_weights


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
    lambda s: {'mata': {'epochs': 1, 'iters': 9}, 'model': s, 'optimizer': {'state': {}}, 'lr_scheduler': {'gamma': 1}},
])  # fmt: skip
def test_loads_whatever_wrote_it(tmp_path, wrap):
    theirs, ours = net(0), net(1)
    torch.save(wrap(theirs.state_dict()), tmp_path / 'net.pth')
    load_weights(ours, tmp_path / 'net.pth')
    assert equal(ours, theirs)


def test_param_key_chooses(tmp_path):
    torch.save({'params': net(0).state_dict(), 'params_ema': net(1).state_dict()}, tmp_path / 'net.pth')
    loaded = net(2)
    load_weights(loaded, tmp_path / 'net.pth', param_key='params_ema')
    assert equal(loaded, net(1))


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_loads_safetensors(tmp_path, prefix):
    theirs, ours = net(0), net(1)
    path = save({f'{prefix}{k}': v for k, v in theirs.state_dict().items()}, tmp_path / 'net.safetensors')
    load_weights(ours, path, param_key='params_ema')
    assert equal(ours, theirs)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
class TestRefused:
    def test_another_networks_weights(self, tmp_path, suffix):
        path = save(DBLRDiscriminator(num_feat=8, num_fc=8).state_dict(), tmp_path / f'net{suffix}')
        for strict in (True, False):
            with pytest.raises(DBLRError, match=rf'net{suffix}: not a check.* DBLRNet: 0 of its \d+ tensors match'):
                load_weights(net(), path, strict=strict)

    def test_a_weight_too_few(self, tmp_path, suffix):
        state = net().state_dict()
        del state['conv_l1.bias']
        path = save(state, tmp_path / f'net{suffix}')
        count = len(state)
        with pytest.raises(DBLRError, match=rf'{count} of its {count + 1} tensors match \(conv_l1.bias is missing\)'):
            load_weights(net(), path)

    def test_other_options(self, tmp_path, suffix):
        path = save(net(num_feat=32).state_dict(), tmp_path / f'net{suffix}')
        message = r'conv_l2.weight is \(32, 16, 3, 3, 3\), not \(16, 16, 3, 3, 3\).*network_g'
        with pytest.raises(DBLRError, match=message):
            load_weights(net(), path)

    @pytest.mark.parametrize('value', [float('nan'), float('-inf')])
    def test_weights_that_diverged(self, tmp_path, suffix, value):
        state = net().state_dict()
        state['conv_l2.weight'].view(-1)[7] = value
        path = save(state, tmp_path / f'net{suffix}')
        with pytest.raises(DBLRError, match=f'net{suffix}: conv_l2.weight holds NaN or infinity'):
            load_weights(net(), path)


def test_not_strict_loads_what_matches(tmp_path):
    colour, luma = net(0, num_in_ch=3, num_out_ch=3), net(1)
    torch.save({'params': colour.state_dict()}, tmp_path / 'net.pth')
    first = luma.conv_l1.weight.clone()
    load_weights(luma, tmp_path / 'net.pth', strict=False)
    assert torch.equal(luma.conv_l2.weight, colour.conv_l2.weight)
    assert torch.equal(luma.conv_l1.weight, first)


def test_a_training_state_holds_no_weights(tmp_path):
    torch.save({'iter': 5, 'epoch': 1}, tmp_path / 'state.pth')
    with pytest.raises(DBLRError, match='no weights under'):
        load_state_dict(tmp_path / 'state.pth')


def test_simdeblurs_trainer_is_read_and_what_it_lacks_is_named(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    weights = {'module.L_in.0.weight': torch.zeros(64, 3, 3, 3, 3)}
    torch.save({'mata': {'epochs': 1, 'iters': 9}, 'model': weights, 'optimizer': {}, 'lr_scheduler': {}}, path)
    assert list(load_state_dict(path)) == ['conv_l1.weight']
    with pytest.raises(DBLRError, match='epoch_1.pth: not a checkpoint of this DBLRNet: 0 of its .*is missing'):
        load_network(path)


def test_weights_beside_other_things(tmp_path):
    torch.save({'conv_l1.weight': torch.zeros(1), 'epoch': 3}, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match='net.pth: not a checkpoint: it holds other things'):
        load_state_dict(tmp_path / 'net.pth')
