"""A network with its weights, built from what a file says."""

import pytest
import torch
from basicsr.archs import build_network

from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.loading import load_network
from dblr_plugin.weights import save_atomically

NETWORK = {'type': 'DBLRNet', 'num_feat': 8, 'num_block': 1}


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_checkpoint_says_all_there_is_to_say(tmp_path, suffix):
    content = {'params': build_network(NETWORK).state_dict(), 'network': NETWORK}
    save_atomically(content, tmp_path / f'net{suffix}')
    loaded = load_network(tmp_path / f'net{suffix}')
    assert (loaded.options, loaded.trained_on, loaded.pad_multiple) == (NETWORK, None, 1)
    assert str(loaded) == f'net{suffix} (DBLRNet)' and not loaded.net.training
    assert all(torch.equal(value, content['params'][key]) for key, value in loaded.net.state_dict().items())
    save_atomically({**content, 'trained_on': 'GoPro', 'pad_multiple': 4}, tmp_path / f'net{suffix}')
    loaded = load_network(tmp_path / f'net{suffix}')
    assert str(loaded) == f'net{suffix} (DBLRNet, trained on GoPro)' and loaded.pad_multiple == 4


def test_an_option_file_has_the_last_word(tmp_path):
    content = {'params': build_network(NETWORK).state_dict(), 'network': NETWORK, 'pad_multiple': 4}
    save_atomically(content, tmp_path / 'net.safetensors')
    (tmp_path / 'net.yml').write_text(
        'network_g: {type: DBLRNet, num_feat: 8, num_block: 1, causal: true}\nval: {pad_multiple: 2}'
    )
    loaded = load_network(tmp_path / 'net.safetensors', tmp_path / 'net.yml')
    assert loaded.options['causal'] and loaded.pad_multiple == 2


@pytest.mark.parametrize('multiple', [0, -4, '4'])
def test_a_pad_multiple_that_is_none(tmp_path, multiple):
    content = {'params': build_network(NETWORK).state_dict(), 'network': NETWORK, 'pad_multiple': multiple}
    save_atomically(content, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match=r'net\.pth: pad_multiple is .* name its option file'):
        load_network(tmp_path / 'net.pth')
