"""``dblr deblur`` as a user types it; what it refuses stands in ``tests/faults/corpus_deblur.py``."""

import os
import random
import re
import signal
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from processes import Run, dblr, run_python

from dblr_plugin.commands import main
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.video_restorer import VideoRestorer

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


def test_the_mean_over_flips_if_asked_for(footage, tmp_path):
    source = footage / 'val/lq/v'
    deblur('-i', source, '-o', tmp_path / 'out', '--weights', 'light', '--self-ensemble')
    frames = [cv2.imread(str(path))[..., ::-1] for path in sorted(source.iterdir())]
    settings = {'device': 'cpu', 'backend': 'torch', 'precision': 'fp32'}
    restored = [
        list(VideoRestorer.from_weights('light', self_ensemble=ensemble, **settings).restore(frames))
        for ensemble in (True, False)
    ]
    written = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / 'out').iterdir())]
    assert np.array_equal(written, restored[0]) and not np.array_equal(written, restored[1])


def test_a_folder_and_a_trial_side_by_side(weights, footage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = footage / 'val/lq/v'
    deblur('-i', folder, '-o', 'out', '--weights', weights, '--suffix', '_sharp')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [f'{i:08d}_sharp.png' for i in range(6)]
    trial = ['--compare', '--start', '1', '--end', '4', '--tile', '32']
    deblur('-i', f'{folder}/*.png', '-o', 'out.mp4', '--weights', weights, *trial)
    pictures = decoded(tmp_path / 'out.mp4')
    height, width = cv2.imread(str(folder / '00000001.png')).shape[:2]
    assert len(pictures) == 3 and pictures[0].shape == (height, 2 * width, 3)
    # the network is the identity: the same objects on both sides
    assert cv2.PSNR(*(np.ascontiguousarray(side[height // 2 :]) for side in np.split(pictures[0], 2, axis=1))) > 35


def test_a_causal_network_tells_its_latency(footage, tmp_path, capsys):
    weights = write_weights(tmp_path / 'live.pth', causal=True)
    deblur('-i', footage / 'val/lq/v', '-o', tmp_path / 'out', '--weights', weights, '--causal')
    last = capsys.readouterr().out.splitlines()[-1]
    half, most = map(float, re.fullmatch(r'latency, .*: (.+) ms median, (.+) ms 95th percentile', last).groups())
    assert 0 < half <= most < 10_000
    assert len(list((tmp_path / 'out').iterdir())) == 6


def test_causal_takes_weights_of_its_own_and_refuses_others(footage, tmp_path, capsys):
    deblur('-i', footage / 'val/lq/v', '-o', tmp_path / 'out', '--causal')
    assert 'weights: light-causal.safetensors' in capsys.readouterr().out
    with pytest.raises(DBLRError, match='leave --weights out to use light-causal'):
        deblur('-i', footage / 'val/lq/v', '-o', tmp_path / 'other', '--causal', '--weights', 'light')


def test_what_is_unknown_is_told_with_the_usage_of_its_command(capsys):
    with pytest.raises(SystemExit):
        main(['deblur', '-i', 'a.mp4', '-o', 'b.mp4', '--precison', 'int8'])
    said = capsys.readouterr().err
    assert said.startswith('usage: dblr deblur ')
    assert 'dblr deblur: error: unrecognized arguments: --precison int8' in said


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_what_was_done(weights, tmp_path, number):
    write_video(tmp_path / 'long.mp4', 400, (48, 64))
    arguments = ('-i', 'long.mp4', '-o', 'out.mp4', '--weights', weights, '--backend', 'torch', '--fp32')
    run = Run('deblur', *arguments, cwd=tmp_path)
    assert run.until(lambda: list(tmp_path.glob('.*out*/0*'))), run.stderr  # a whole segment
    os.kill(run.pid, number)
    code, errors = run.wait(), run.stderr
    assert code == 130 and 'Traceback' not in errors
    assert 'dblr: error: interrupted' in errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ['.out.mp4.partial', 'long.mp4', 'net.pth', 'out.mp4']
    kept = len(decoded(tmp_path / 'out.mp4'))
    assert 100 <= kept < 400
    assert (
        f'ended early; in: 400 frames, 16.00 s; kept: {kept} frames, {kept / 25:.2f} s; --resume continues it' in errors
    )


@pytest.mark.slow
def test_kills_end_in_the_same_film(weights, kills, tmp_path):
    """Killed at any moment and resumed: bit for bit what one run gives."""
    frames = 200 + 60 * kills
    write_video(tmp_path / 'long.mp4', frames, (32, 48))
    arguments = ('deblur', '-i', 'long.mp4', '--weights', weights, '--backend', 'torch', '--fp32')
    assert dblr(*arguments, '-o', 'whole.mp4', cwd=tmp_path).returncode == 0
    moments = random.Random(0)

    def segments() -> int:
        return len(list(tmp_path.glob('.*out*/0*')))

    for number in range(kills):
        run = Run(*arguments, '-o', 'out.mp4', '--resume', cwd=tmp_path)
        assert run.until(lambda enough=number // 2: list(tmp_path.glob('.*out*/film*')) and segments() >= enough)
        time.sleep(moments.uniform(0, 0.1))
        assert run.kill() == -signal.SIGKILL, run.stderr
    assert segments() >= (kills - 1) // 2
    last = dblr(*arguments, '-o', 'out.mp4', '--resume', cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert f'in: {frames} frames, {frames / 25:.2f} s; out: {frames} frames, {frames / 25:.2f} s' in last.stdout
    assert not list(tmp_path.glob('.out*'))
    both = decoded(tmp_path / 'whole.mp4'), decoded(tmp_path / 'out.mp4')
    assert all((a == b).all() for a, b in zip(*both, strict=True))


def test_older_outputs_are_not_replaced_unasked(weights, tmp_path, capsys):
    write_video(tmp_path / 'a.mp4', 3)
    run = ('-i', tmp_path / 'a.mp4', '-o', tmp_path / 'out.mp4', '--weights', weights)
    deblur(*run)
    before = (tmp_path / 'out.mp4').read_bytes()
    with pytest.raises(DBLRError, match=r'out\.mp4 exists; give another output, or --overwrite'):
        deblur(*run)
    deblur(*run, '--resume')
    assert 'out.mp4 is complete; --overwrite restores it again' in capsys.readouterr().out
    assert (tmp_path / 'out.mp4').read_bytes() == before
    deblur(*run, '--overwrite', '--end', '0.08')
    assert len(decoded(tmp_path / 'out.mp4')) == 2


def test_full_memory_is_told_in_terms_of_deblurring(weights, tmp_path, monkeypatch):
    write_video(tmp_path / 'a.mp4', 3)
    monkeypatch.setattr(
        'dblr_plugin.restore.frame_restorer.FrameRestorer.restore', lambda *_: torch.empty(1 << 50, dtype=torch.uint8)
    )
    with pytest.raises(DBLRError, match=r'a\.mp4: the memory is full; close other programs, or give .*--weights light'):
        deblur('-i', tmp_path / 'a.mp4', '-o', tmp_path / 'out.mp4', '--weights', weights)
    assert not (tmp_path / 'out.mp4').exists()


def test_a_tree_of_videos(weights, tmp_path, capsys):
    for name in ('films/b.mp4', 'films/sub/a.mkv', 'films/sub/deeper/old.mpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / name.replace('.mpg', '.mkv'), 3)
    old = tmp_path / 'films/sub/deeper/old.mkv'
    old.rename(old.with_suffix('.ts'))
    (tmp_path / 'films/a_bad.mp4').write_bytes(b'no film')
    (tmp_path / 'films/notes.txt').write_text('mine')
    run = ('-i', tmp_path / 'films', '-o', tmp_path / 'out', '--weights', weights)
    with pytest.raises(DBLRError) as raised:
        deblur(*run)
    lines = str(raised.value).splitlines()
    assert lines[0] == '1 of 4 videos could not be restored:' and 'a_bad.mp4 is not a video' in lines[1]
    made = sorted(str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*') if path.is_file())
    assert made == ['b.mp4', 'sub/a.mkv', 'sub/deeper/old.mkv']
    assert capsys.readouterr().out.count('weights: ') == 1  # one network for all
    write_video(tmp_path / 'films/a_bad.mp4', 2)
    deblur(*run)
    said = capsys.readouterr().out
    assert said.count('is complete') == 3 and '2 frames restored' in said
    deblur('-i', tmp_path / 'films/*.mp4', '-o', tmp_path / 'globbed', '--weights', weights, '--suffix', '_sharp')
    assert sorted(path.name for path in (tmp_path / 'globbed').iterdir()) == ['a_bad_sharp.mp4', 'b_sharp.mp4']
    for output, message in (
        ('one.avi', 'one.avi is a video, but .*films is a folder of videos'),
        ('net.pth', 'is a file'),
    ):
        with pytest.raises(DBLRError, match=message):
            deblur('-i', tmp_path / 'films', '-o', tmp_path / output, '--weights', weights)


def test_what_a_folder_means_has_to_be_clear(weights, tmp_path):
    (tmp_path / 'in').mkdir()
    write_video(tmp_path / 'in/a.mp4', 2)
    write_video(tmp_path / 'in/a.mkv', 2)
    (tmp_path / 'in/a.mkv').rename(tmp_path / 'in/a.ts')
    write_video(tmp_path / 'in/a.mkv', 2)
    with pytest.raises(DBLRError, match=r'would both become .*a\.mkv; rename one'):
        deblur('-i', tmp_path / 'in', '-o', tmp_path / 'out', '--weights', weights)
    cv2.imwrite(str(tmp_path / 'in/thumbnail.png'), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DBLRError, match=r'in holds 1 image and 3 videos; choose one kind with a glob'):
        deblur('-i', tmp_path / 'in', '-o', tmp_path / 'out', '--weights', weights)
