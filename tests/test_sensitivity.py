"""What scripts/sensitivity.py compares is what its table says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from dblr_plugin.archs import DBLRDiscriminator, DBLRNet

SCRIPTS = Path(__file__).resolve().parent.parent / 'scripts'


@pytest.fixture(scope='module')
def networks() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import sensitivity_networks

        return sensitivity_networks


@torch.no_grad()
def test_full_range_is_the_network_on_stretched_y(networks):
    plain = DBLRNet(num_feat=16, num_block=1).eval()
    stretched = networks.FullRangeDBLRNet(num_feat=16, num_block=1).eval()
    stretched.load_state_dict(plain.state_dict())
    full = torch.rand(1, 5, 1, 24, 24)
    restored = stretched(full * 219 / 255 + 16 / 255)
    torch.testing.assert_close((restored * 255 - 16) / 219, plain(full), atol=1e-5, rtol=0)


def test_discriminators_differ_in_pooling_alone(networks):
    settings = {'num_feat': 4, 'num_fc': 8}
    patches = torch.rand(2, 1, 40, 40)
    plain = DBLRDiscriminator(**settings)
    pooled, flat = networks.MaxPoolDiscriminator(**settings), networks.FlattenDiscriminator(**settings)
    assert [p.shape for p in pooled.parameters()] == [p.shape for p in plain.parameters()]
    assert pooled.features(patches).shape == (2, 32, 2, 2) and plain.features(patches).shape == (2, 32, 3, 3)
    assert not any(getattr(layer, 'stride', None) == (2, 2) for layer in pooled.features)
    assert flat.classifier[0].in_features == 9 * plain.classifier[0].in_features
    assert all(net(patches).shape == (2, 1) for net in (plain, pooled, flat))
