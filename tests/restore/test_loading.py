"""Networks are built as their checkpoint or option file states, and only if that does no more than build them."""

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY

from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.loading import check_named_network, load_network
from dblr_plugin.weights.checkpoint import save_atomically

NETWORK = {'type': 'DBLRNet', 'num_feat': 8, 'num_block': 1}


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_checkpoint_states_network_data_and_pad_multiple(tmp_path, suffix):
    content = {'params': build_network(NETWORK).state_dict(), 'network': NETWORK}
    save_atomically(content, tmp_path / f'net{suffix}')
    loaded = load_network(tmp_path / f'net{suffix}')
    assert (loaded.options, loaded.trained_on, loaded.pad_multiple) == (NETWORK, None, 1)
    assert str(loaded) == f'net{suffix} (DBLRNet)' and not loaded.net.training
    assert all(torch.equal(value, content['params'][key]) for key, value in loaded.net.state_dict().items())
    save_atomically({**content, 'trained_on': 'GoPro', 'pad_multiple': 4}, tmp_path / f'net{suffix}')
    loaded = load_network(tmp_path / f'net{suffix}')
    assert str(loaded) == f'net{suffix} (DBLRNet, trained on GoPro)' and loaded.pad_multiple == 4


def test_option_file_overrides_the_checkpoint(tmp_path):
    content = {'params': build_network(NETWORK).state_dict(), 'network': NETWORK, 'pad_multiple': 4}
    save_atomically(content, tmp_path / 'net.safetensors')
    (tmp_path / 'net.yml').write_text(
        'network_g: {type: DBLRNet, num_feat: 8, num_block: 1, causal: true}\nval: {pad_multiple: 2}'
    )
    loaded = load_network(tmp_path / 'net.safetensors', tmp_path / 'net.yml')
    assert loaded.options['causal'] and loaded.pad_multiple == 2


@pytest.mark.parametrize('multiple', [0, -4, '4'])
def test_invalid_pad_multiple_is_refused(tmp_path, multiple):
    content = {'params': build_network(NETWORK).state_dict(), 'network': NETWORK, 'pad_multiple': multiple}
    save_atomically(content, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match=r'net\.pth: pad_multiple is .* name its option file'):
        load_network(tmp_path / 'net.pth')


@pytest.mark.parametrize(('text', 'message'), [
    ('val: {pad_multiple: 0}', r'net\.yml: val\.pad_multiple is 0, not a number from 1'),
    ('val: {pad_multiple: four}', r"net\.yml: val\.pad_multiple is 'four'"),
    ('val: 5', r'net\.yml: val is 5, not a section'),
    ('network_g: {type: EDVR, num_feat: -8}', r'net\.yml: its network cannot be built \(.*negative dimension'),
    ('network_g: {type: EDVR, num_feat: 0}', r'net\.yml: its network cannot be built \(.*zero'),
    ('network_g: {type: DBN, num_in_ch: 4, num_out_ch: 4}', r'net\.yml: its network takes frames of 4 channels'),
])  # fmt: skip
def test_invalid_option_file_is_refused(tmp_path, text, message):
    save_atomically({'params': build_network(NETWORK).state_dict(), 'network': NETWORK}, tmp_path / 'net.pth')
    network = '' if 'network_g' in text else 'network_g: {type: DBLRNet, num_feat: 8, num_block: 1}\n'
    (tmp_path / 'net.yml').write_text(network + text)
    with pytest.raises(DBLRError, match=message):
        load_network(tmp_path / 'net.pth', tmp_path / 'net.yml')


def test_an_option_file_alone_of_another_network_than_the_default(tmp_path):
    (tmp_path / 'other.yml').write_text('network_g: {type: DBLRNet, num_feat: 4, num_block: 1}')
    with pytest.raises(DBLRError, match=r'other.yml: .* not that of the default weights; give the weights too'):
        load_network(None, tmp_path / 'other.yml')


def test_pad_multiple_of_the_checkpoint_is_the_default(tmp_path):
    content = {'params': build_network(NETWORK).state_dict(), 'pad_multiple': 4, 'trained_on': {'set': 'GoPro'}}
    save_atomically(content, tmp_path / 'net.pth')
    (tmp_path / 'net.yml').write_text('network_g: {type: DBLRNet, num_feat: 8, num_block: 1}')
    loaded = load_network(tmp_path / 'net.pth', tmp_path / 'net.yml')
    assert loaded.pad_multiple == 4 and str(loaded) == 'net.pth (DBLRNet)'


SMALL = {'num_feat': 8, 'num_block': 1}
NETWORKS = [
    {'type': 'DBLRNet', **SMALL}, {'type': 'DBLRNet', **SMALL, 'num_in_ch': 3, 'num_out_ch': 3, 'num_frame': 7},
    {'type': 'MultiScaleDBLRNet', 'num_feat': [8, 8, 8], 'num_block': [1, 1, 1]}, {'type': 'DBN', 'num_feat': 8},
    {'type': 'DeepDeblur', **SMALL}, {'type': 'BlurryInput'}, {'type': 'FourierBurstAccumulation'},
    {'type': 'EDVR', 'num_feat': 8, 'num_extract_block': 1, 'num_reconstruct_block': 1, 'hr_in': True,
     'deformable_groups': 1},
]  # fmt: skip


@pytest.mark.parametrize('options', NETWORKS, ids=lambda options: options['type'])
def test_networks_that_restore_windows_are_accepted(options):
    if options['type'] == 'MultiScaleDBLRNet':
        options = {'type': 'MultiScaleDBLRNet'}
    check_named_network(options, build_network(options).state_dict(), 'net.pth')


@pytest.mark.parametrize(('options', 'reason'), [
    ({'type': 'DBLRNet', 'num_block': 10_000_000}, 'num_block is 10000000, too large for its weights'),
    ({'type': 'DBLRNet', 'num_feat': 500, 'num_block': 40}, 'cannot be that of its weights'),
    ({'type': 'DBLRNet', 'num_block': -1e9}, 'num_block is'),
    ({'type': 'DBLRNet', 'num_frame': 501}, 'num_frame is 501'),
    ({'type': 'DBLRNet', 'num_block': 'ten'}, "num_block is the text 'ten'"),
    ({'type': 'DBLRNet', 'path': '/etc/passwd'}, "has no argument 'path'"),
    ({'type': 'SpyNet', 'load_path': '/fifo'}, 'SpyNet has no num_in_ch'),
    ({'type': 'BasicVSR', 'spynet_path': '/fifo'}, 'BasicVSR has no num_in_ch'),
    ({'type': 'VGGFeatureExtractor', 'layer_name_list': ['conv1_2']}, 'VGGFeatureExtractor has no num_in_ch'),
    ({'type': 'os.system'}, "'os.system' is not a registered class"),
    ({'type': ['DBLRNet']}, 'is not a registered class'),
    # each number is within its bound, but there are hundreds of thousands of blocks in total
    ({'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_group': 500, 'num_block': 500}, 'it has more than'),
])  # fmt: skip
def test_oversized_or_unsafe_network_is_refused_before_it_is_built(tmp_path, options, reason, monkeypatch):
    built = []
    for name, cls in ARCH_REGISTRY:
        if name == str(options['type']) and name not in ('DBLRNet', 'RCAN'):
            monkeypatch.setattr(cls, '__init__', lambda self, **arguments: built.append(arguments))
    torch.save({'params': {'w': torch.ones(3)}, 'network': options}, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match=r'net\.pth: its network ') as caught:
        load_network(tmp_path / 'net.pth')
    assert reason in str(caught.value) and '(-opt, or option' in str(caught.value) and '\n' not in str(caught.value)
    assert not built
