"""A recurrent network in a user's own file, which restores all frames of a clip, works in all commands."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.commands import main
from dblr_plugin.errors import DBLRError
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.restore.openvino_forward import nncf_installed, openvino_installed
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.yaml_file import import_files

RECURRENT = '''
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


@ARCH_REGISTRY.register()
class TinyRecurrent(nn.Module):
    """Mixes each frame with a state that the frames before it have left."""

    restores = 'all'

    def __init__(self, num_in_ch=3, num_frame=4):
        super().__init__()
        self.mix = nn.Conv2d(2 * num_in_ch, num_in_ch, 3, padding=1)

    def forward(self, x):
        state, restored = torch.zeros_like(x[:, 0]), []
        for i in range(x.shape[1]):
            state = self.mix(torch.cat([x[:, i], state], 1))
            restored.append(x[:, i] + state)
        return torch.stack(restored, 1)
'''
NETWORK = {'type': 'TinyRecurrent', 'num_frame': 4}


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the class, imported once, as a name can be registered only once per process."""
    path = tmp_path_factory.mktemp('recurrent') / 'recurrent.py'
    path.write_text(RECURRENT)
    import_files([str(path)])
    return path


@pytest.fixture
def checkpoint(source: Path, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = build_network(NETWORK)
    with torch.no_grad():
        net.mix.weight.mul_(0.2)
    torch.save({'params': net.state_dict(), 'network': NETWORK}, tmp_path / 'net.pth')
    return tmp_path / 'net.pth'


def clip(count: int) -> list[np.ndarray]:
    still = cv2.GaussianBlur(np.random.default_rng(0).random((32, 48, 3)), (0, 0), 2)
    still = (255 * (still - still.min()) / np.ptp(still)).astype(np.uint8)
    return [np.roll(still, i, axis=1) for i in range(count)]


def expected(path: Path, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the result of the network itself, four frames at a time."""
    net = build_network(NETWORK).eval()
    net.load_state_dict(torch.load(path)['params'])
    planes = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        restored = torch.cat([net(part.unsqueeze(0))[0] for part in planes.split(4)])
    return list(restored.clamp(0, 1).mul(255).round().permute(0, 2, 3, 1).byte().numpy())


def write_clips(folder: Path, frames: list[np.ndarray]) -> None:
    for side in ('lq', 'gt'):
        (folder / side / 'a').mkdir(parents=True)
        for number, frame in enumerate(frames):
            cv2.imwrite(str(folder / side / f'a/{number:08d}.png'), frame[..., ::-1])


def psnr_of(frames: list[np.ndarray], truth: list[np.ndarray]) -> float:
    errors = [np.square(a.astype(float) - b).mean() for a, b in zip(frames, truth, strict=True)]
    return float(np.mean([10 * np.log10(255**2 / error) for error in errors]))


@pytest.mark.parametrize('backend', ['torch', 'openvino', 'mnn'])
def test_restored_frames_equal_those_of_the_network(checkpoint, backend):
    """The last run of frames is shorter than the others."""
    if backend != 'torch':
        pytest.importorskip({'mnn': 'MNN'}.get(backend, backend))
    frames = clip(10)
    restorer = VideoRestorer.from_weights(checkpoint, device='cpu', backend=backend, precision='fp32')
    for found, wanted in zip(restorer.restore(frames), expected(checkpoint, frames), strict=True):
        assert np.abs(found.astype(int) - wanted).max() <= 1


def test_part_of_a_clip_equals_the_same_part_of_the_whole(checkpoint):
    """Otherwise several processes would not validate as one does."""
    frames = clip(10)
    restorer = VideoRestorer.from_weights(checkpoint, device='cpu', backend='torch', precision='fp32')
    whole = [restored for restored, _ in restorer.restore_clip(frames.__getitem__, 10, range(10))]
    part = [restored for restored, _ in restorer.restore_clip(frames.__getitem__, 10, range(3, 6))]
    assert all(torch.equal(one, other) for one, other in zip(part, whole[3:6], strict=True))


@pytest.mark.parametrize('done', [1, 2, 9, 10, 14, 18, 21])
def test_resumed_video_equals_an_uninterrupted_one(checkpoint, done):
    """Its last frames depend on the state that those before them left, since the multiple of four or the cut."""
    frames = [*clip(10), *(255 - frame for frame in clip(12))]
    restorer = VideoRestorer.from_weights(checkpoint, device='cpu', backend='torch', precision='fp32')
    lead = restorer.lead(done)
    resumed = list(restorer.restore(frames[done - lead :]))[lead:]
    assert np.array_equal(resumed, list(restorer.restore(frames))[done:])


@pytest.mark.slow
def test_deblur_test_and_benchmark_equal_the_network(source, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = clip(6)
    write_clips(tmp_path, frames)
    wanted = expected(checkpoint, frames)

    with av.open('in.mkv', 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, 'bgr0'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    (tmp_path / 'test.yml').write_text(yaml.safe_dump({
        'name': 'recurrent', 'model_type': 'VideoDeblurModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 0,
        'imports': [str(source)], 'network_g': NETWORK,
        'datasets': {'test': {'name': 'a', 'type': 'VideoDeblurTestDataset', 'dataroot_lq': 'lq', 'dataroot_gt': 'gt'}},
        'path': {'pretrain_network_g': 'net.pth', 'strict_load_g': True},
        'val': {'save_img': False, 'protocol': 'basicsr'},
    }))  # fmt: skip
    main(
        [
            'deblur',
            '-i',
            'in.mkv',
            '-o',
            'out/',
            '--weights',
            'net.pth',
            '-opt',
            'test.yml',
            '--backend',
            'torch',
            '--fp32',
        ]
    )
    files = sorted((tmp_path / 'out').rglob('*.png'))
    for file, frame in zip(files, wanted, strict=True):
        assert np.abs(cv2.imread(str(file))[..., ::-1].astype(int) - frame).max() <= 1

    main(['test', '-opt', 'test.yml'])
    tested = json.loads((tmp_path / 'results/recurrent/metrics.json').read_text())[0]['mean']['psnr']
    assert tested == pytest.approx(psnr_of(wanted, frames), abs=1e-2)

    (tmp_path / 'bench.yml').write_text(yaml.safe_dump({
        'name': 'bench', 'protocols': ['basicsr'], 'timing': {'size': '48x32', 'seconds': 0},
        'set': {'datasets.test.dataroot_lq': 'lq', 'datasets.test.dataroot_gt': 'gt'},
        'methods': {
            'Recurrent': {'options': 'test.yml', 'weights': 'net.pth'},
        },
    }))  # fmt: skip
    main(['benchmark', '-opt', 'bench.yml'])
    methods = json.loads((tmp_path / 'benchmarks/bench/report.json').read_text())['methods']
    assert methods[0]['figures']['psnr_basicsr'] == pytest.approx(tested, abs=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not (openvino_installed() and nncf_installed()), reason='needs openvino and nncf')
@pytest.mark.parametrize('length', [1, 5])
def test_streams_of_any_length_are_restored_in_int8(source, length):
    """It is calibrated on as many frames as the network takes at once, and a stream may have fewer."""
    net = build_network(dict(NETWORK)).eval()
    frames = list(np.random.default_rng(0).integers(0, 256, (length, 32, 40, 3), dtype=np.uint8))
    quantised, exact = (
        np.stack(list(VideoRestorer(net, NETWORK, 'cpu', precision=precision).restore(frames))).astype(int)
        for precision in ('int8', 'fp32')
    )
    assert np.abs(quantised - exact).max() <= 4


def test_flow_is_refused_if_all_frames_are_restored(source):
    with pytest.raises(DBLRError, match='TinyRecurrent restores all frames, .*; set network_g.flow to false'):
        NetworkTraits.of({**NETWORK, 'flow': True})


def test_training_is_refused(source, train_options, tmp_path):
    """Training sets have only one sharp frame per window, and a loss would compare all frames with it."""
    train_options |= {'imports': [str(source)], 'network_g': NETWORK}
    (tmp_path / 'train.yml').write_text(yaml.safe_dump(train_options))
    with pytest.raises(DBLRError, match='TinyRecurrent, which restores all frames, and .*; train it with another'):
        check_option_file(tmp_path / 'train.yml', is_train=True)
