import pickle

import pytest
import torch
from torch import nn

from dblr_plugin.archs import DBLRDiscriminator, DBLRNet
from dblr_plugin.errors import DBLRError
from dblr_plugin.training.checkpoint import load_state_dict, load_weights, read_checkpoint, save_atomically


def net(seed: int = 0, **kwargs) -> DBLRNet:
    torch.manual_seed(seed)
    return DBLRNet(**{'num_feat': 16, 'num_block': 1, **kwargs})


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Refuses:
    """Fails half way through being saved, as a full disk does."""

    def __reduce__(self):
        raise OSError(28, 'No space left on device')


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'net.pth'
    save_atomically({'params': net().state_dict()}, path)
    before = path.read_bytes()
    with pytest.raises(OSError, match='No space'):
        save_atomically({'params': net(1).state_dict(), 'extra': Refuses()}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('wrap', [
    lambda s: {'params': s},
    lambda s: {'params_ema': s},
    lambda s: s,
    lambda s: {'params': {f'module.{k}': v for k, v in s.items()}},
    lambda s: {f'module.{k}': v for k, v in s.items()},
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


def test_another_networks_weights(tmp_path):
    torch.save({'params': DBLRDiscriminator(num_feat=8, num_fc=8).state_dict()}, tmp_path / 'net.pth')
    for strict in (True, False):
        with pytest.raises(DBLRError, match=r'net.pth: not a checkpoint of this DBLRNet: 0 of its \d+ tensors match'):
            load_weights(net(), tmp_path / 'net.pth', strict=strict)


def test_other_options_are_named(tmp_path):
    torch.save({'params': net(num_feat=32).state_dict()}, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match=r'conv_l2.weight is \(32, 16, 3, 3, 3\), not \(16, 16, 3, 3, 3\).*network_g'):
        load_weights(net(), tmp_path / 'net.pth')


def test_not_strict_loads_what_matches(tmp_path):
    colour, luma = net(0, num_in_ch=3, num_out_ch=3), net(1)
    torch.save({'params': colour.state_dict()}, tmp_path / 'net.pth')
    first = luma.conv_l1.weight.clone()
    load_weights(luma, tmp_path / 'net.pth', strict=False)
    assert torch.equal(luma.conv_l2.weight, colour.conv_l2.weight)
    assert torch.equal(luma.conv_l1.weight, first)


@pytest.mark.parametrize('keep', [0, 1, 100, 0.5, 0.999])
def test_damaged_file(tmp_path, keep):
    path = tmp_path / 'net.pth'
    save_atomically({'params': net().state_dict()}, path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(DBLRError, match='net.pth: damaged'):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(DBLRError, match='missing.pth: no such checkpoint'):
        read_checkpoint(tmp_path / 'missing.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(DBLRError, match='list.pth: not a checkpoint'):
        read_checkpoint(tmp_path / 'list.pth')
    torch.save({'iter': 5, 'epoch': 1}, tmp_path / 'state.pth')
    with pytest.raises(DBLRError, match='no weights under'):
        load_state_dict(tmp_path / 'state.pth')
    (tmp_path / 'code.pth').write_bytes(pickle.dumps(Runs()))
    with pytest.raises(DBLRError, match='code.pth: damaged, or not a checkpoint'):
        read_checkpoint(tmp_path / 'code.pth')
    assert not (tmp_path / 'ran').exists()


class Runs:
    """A pickle that would run code when loaded."""

    def __reduce__(self):
        return eval, ("open('ran', 'w')",)
