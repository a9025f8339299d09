"""What a checkpoint's own description of its network may make us do."""

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY

from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.loading import check_named_network, load_network

SMALL = {'num_feat': 8, 'num_block': 1}
NETWORKS = [
    {'type': 'DBLRNet', **SMALL}, {'type': 'DBLRNet', **SMALL, 'num_in_ch': 3, 'num_out_ch': 3, 'num_frame': 7},
    {'type': 'MultiScaleDBLRNet', 'num_feat': [8, 8, 8], 'num_block': [1, 1, 1]}, {'type': 'DBN', 'num_feat': 8},
    {'type': 'DeepDeblur', **SMALL}, {'type': 'BlurryInput'}, {'type': 'FourierBurstAccumulation'},
    {'type': 'EDVR', 'num_feat': 8, 'num_extract_block': 1, 'num_reconstruct_block': 1, 'hr_in': True,
     'deformable_groups': 1},
]  # fmt: skip


@pytest.mark.parametrize('options', NETWORKS, ids=lambda options: options['type'])
def test_networks_that_restore_windows_are_built(options):
    if options['type'] == 'MultiScaleDBLRNet':
        options = {'type': 'MultiScaleDBLRNet'}
    check_named_network(options, build_network(options).state_dict(), 'net.pth')


@pytest.mark.parametrize(('options', 'reason'), [
    ({'type': 'DBLRNet', 'num_block': 10_000_000}, 'num_block is 10000000, more than its weights show'),
    ({'type': 'DBLRNet', 'num_feat': 500, 'num_block': 40}, 'cannot be that of its weights'),
    ({'type': 'DBLRNet', 'num_block': -1e9}, 'num_block is'),
    ({'type': 'DBLRNet', 'num_frame': 501}, 'num_frame is 501'),
    ({'type': 'DBLRNet', 'num_block': 'ten'}, "num_block is the text 'ten'"),
    ({'type': 'DBLRNet', 'path': '/etc/passwd'}, "has no argument 'path'"),
    ({'type': 'SpyNet', 'load_path': '/fifo'}, 'SpyNet has no num_in_ch'),
    ({'type': 'BasicVSR', 'spynet_path': '/fifo'}, 'BasicVSR has no num_in_ch'),
    ({'type': 'VGGFeatureExtractor', 'layer_name_list': ['conv1_2']}, 'VGGFeatureExtractor has no num_in_ch'),
    ({'type': 'os.system'}, "'os.system' is no registered class"),
    ({'type': ['DBLRNet']}, 'is no registered class'),
    # all bounds kept, and hundreds of thousands of blocks in all
    ({'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_group': 500, 'num_block': 500}, 'it has more than'),
])  # fmt: skip
def test_what_would_do_more_than_build_is_refused_before_it_is_built(tmp_path, options, reason, monkeypatch):
    built = []
    for name, cls in ARCH_REGISTRY:
        if name == str(options['type']) and name not in ('DBLRNet', 'RCAN'):
            monkeypatch.setattr(cls, '__init__', lambda self, **arguments: built.append(arguments))
    torch.save({'params': {'w': torch.ones(3)}, 'network': options}, tmp_path / 'net.pth')
    with pytest.raises(DBLRError, match=r'net\.pth: its network ') as caught:
        load_network(tmp_path / 'net.pth')
    assert reason in str(caught.value) and '(-opt)' in str(caught.value) and '\n' not in str(caught.value)
    assert not built
