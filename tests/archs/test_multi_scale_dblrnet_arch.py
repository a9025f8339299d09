"""MultiScaleDBLRNet: cost of its presets, start and arguments."""

import pytest
import torch

from dblr_plugin.archs import MultiScaleDBLRNet
from dblr_plugin.benchmark.complexity import multiply_adds
from dblr_plugin.link import option_files
from dblr_plugin.yaml_file import read_option_file

PRESETS = {'light': 30e3, 'balanced': 120e3}  # most multiply-adds per pixel


def preset(name: str) -> dict:
    path = next(path for path in option_files() if path.name == f'train_{name}.yml')
    return read_option_file(path).plain()['network_g']


@pytest.mark.parametrize('name', PRESETS)
def test_presets_have_the_stated_cost(name):
    arguments = preset(name)
    assert arguments.pop('type') == 'MultiScaleDBLRNet'
    net = MultiScaleDBLRNet(**arguments)
    macs = sum(multiply_adds(net, (1, 5, 1, 128, 128)).values()) / 128**2
    assert 0.8 * PRESETS[name] < macs < PRESETS[name]


def test_network_starts_as_the_identity():
    window = torch.rand(2, 5, 1, 19, 30)
    assert torch.equal(MultiScaleDBLRNet()(window), window[:, 2])
    assert torch.equal(MultiScaleDBLRNet(causal=True)(window), window[:, 4])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'num_frame': 1}, 'at least 3 frames'),
        ({'num_feat': [8], 'num_block': [1, 1]}, 'same scales'),
        ({'num_feat': [], 'num_block': []}, 'same scales'),
        ({'num_feat': [0], 'num_block': [1]}, 'same scales'),
        ({'num_in_ch': 3}, 'must be equal'),
    ],
)
def test_contradicting_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleDBLRNet(**arguments)


def test_windows_of_another_length_are_refused():
    with pytest.raises(ValueError, match='expects'):
        MultiScaleDBLRNet()(torch.rand(1, 3, 1, 16, 16))
