"""``dblr deblur`` as a user types it; what it refuses stands in ``tests/faults/corpus_deblur.py``."""

import os
import re
import signal
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from processes import Run, run_python

from dblr_plugin.commands import main

NETWORK = {'type': 'DBLRNet', 'num_feat': 8, 'num_block': 1, 'input_skip': True}


def write_weights(path: Path, **changes: object) -> Path:
    """Of a network that starts as the identity."""
    options = NETWORK | changes
    torch.save({'params': build_network(options).state_dict(), 'network': options}, path)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / 'net.pth')


def write_video(path: Path, frames: int, size: tuple[int, int] = (64, 96)) -> None:
    texture = cv2.GaussianBlur(np.random.default_rng(0).random((size[0], size[1] + frames, 3)), (0, 0), 2)
    texture = (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, 'yuv420p'
        for i in range(frames):
            picture = np.ascontiguousarray(texture[:, i : i + size[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]


@pytest.mark.slow
def test_a_video(weights, tmp_path):
    """A network that starts as the identity gives back what it got, as far as the encoder does."""
    write_video(tmp_path / 'shaky.mp4', 12)
    arguments = ('-i', 'shaky.mp4', '-o', 'sharp.mp4', '--weights', weights)
    result = run_python('-m', 'dblr_plugin', 'deblur', *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == (
        'sharp.mp4: 12 frames restored; in: 12 frames, 0.48 s; out: 12 frames, 0.48 s'
    )
    before, after = decoded(tmp_path / 'shaky.mp4'), decoded(tmp_path / 'sharp.mp4')
    assert len(after) == 12 and after[0].shape == (64, 96, 3)
    assert all(cv2.PSNR(a, b) > 38 for a, b in zip(before, after, strict=True))


def deblur(*arguments: object) -> None:
    main(['deblur', *map(str, arguments), '--backend', 'torch', '--fp32'])


def test_a_folder_and_a_trial_side_by_side(weights, footage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = footage / 'val/lq/v'
    deblur('-i', folder, '-o', 'out', '--weights', weights, '--suffix', '_sharp')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [f'{i:08d}_sharp.png' for i in range(6)]
    trial = ['--compare', '--start', '1', '--end', '4', '--tile', '32']
    deblur('-i', f'{folder}/*.png', '-o', 'out.mp4', '--weights', weights, *trial)
    pictures = decoded(tmp_path / 'out.mp4')
    assert len(pictures) == 3 and pictures[0][:, 23:25].mean() > 200  # the line between the halves


def test_a_causal_network_tells_its_latency(footage, tmp_path, capsys):
    weights = write_weights(tmp_path / 'live.pth', causal=True)
    deblur('-i', footage / 'val/lq/v', '-o', tmp_path / 'out', '--weights', weights, '--causal')
    last = capsys.readouterr().out.splitlines()[-1]
    half, most = map(float, re.fullmatch(r'latency, .*: (.+) ms median, (.+) ms 95th percentile', last).groups())
    assert 0 < half <= most < 10_000
    assert len(list((tmp_path / 'out').iterdir())) == 6


@pytest.fixture(scope='module')
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('long') / 'long.mp4'
    write_video(path, 400, (180, 320))
    return path


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_leaves_what_was_done(weights, long_video, tmp_path, number):
    run = Run('deblur', '-i', long_video, '-o', 'out.mp4', '--weights', weights, cwd=tmp_path)
    assert run.until(lambda: re.search(r' [1-9]\d*/400', run.stderr)), run.stderr
    os.kill(run.pid, number)
    assert run.wait(timeout=60) not in (0, None) and 'Traceback' not in run.stderr
    assert 'dblr: error: interrupted' in run.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ['net.pth', 'out.mp4']
    assert 0 < len(decoded(tmp_path / 'out.mp4')) < 400
