"""The weights that come with the package."""

import hashlib

import numpy as np
import pytest
from basicsr.data import build_dataset
from basicsr.metrics import calculate_psnr
from basicsr.utils import tensor2img

from dblr_plugin.errors import DBLRError
from dblr_plugin.inference.network import load_network
from dblr_plugin.inference.video_restorer import VideoRestorer
from dblr_plugin.weights import SHIPPED, shipped_weights


def test_readme_has_their_checksum():
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert f'{digest}  {SHIPPED.name}' in (SHIPPED.parent / 'README.md').read_text()


def test_they_say_what_they_are():
    loaded = load_network()
    assert loaded.weights == shipped_weights() == SHIPPED
    assert loaded.options['type'] == 'DBLRNet' and loaded.trained_on
    assert str(loaded) == f'{SHIPPED.name} (DBLRNet, trained on {loaded.trained_on})'


def test_they_deblur(train_options):
    dataset = build_dataset(train_options['datasets']['val'] | {'phase': 'val', 'scale': 1})
    pairs = [(dataset[i]['lq'][2], dataset[i]['gt']) for i in range(6)]
    blurry, sharp = ([tensor2img(picture)[..., ::-1].copy() for picture in side] for side in zip(*pairs, strict=True))
    restored = VideoRestorer.from_weights(device='cpu', backend='torch', precision='fp32').restore(blurry)
    gains = [
        calculate_psnr(one, truth, crop_border=8) - calculate_psnr(other, truth, crop_border=8)
        for one, other, truth in zip(restored, blurry, sharp, strict=True)
    ]
    assert np.mean(gains) > 0


def test_an_installation_without_them_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr('dblr_plugin.weights.shipped.SHIPPED', tmp_path / 'none.safetensors')
    with pytest.raises(DBLRError, match='none.safetensors: this installation lacks the default weights.*--weights'):
        load_network()
