"""The demo: its data are split honestly, its clips reused, and a smoke run leaves everything it promises."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest

from dblr_plugin.errors import DBLRError

SCRIPTS = Path(__file__).resolve().parent.parent / 'scripts'


@pytest.fixture
def clips(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import demo_clips

    return demo_clips


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """As many frames as the demo's footage has, each of one grey value, which is its number."""
    path = tmp_path / 'footage.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 24, 'bgr0'
        for number in range(190):
            frame = np.full((16, 24, 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    return path


def _source_frames(folder: Path, exposure: int) -> set[int]:
    """The numbers of all source frames that the clips of a folder were made of."""
    reach = exposure // 2
    centres = [int(cv2.imread(str(path))[0, 0, 0]) for path in folder.rglob('*.png')]
    return {centre + offset for centre in centres for offset in range(-reach, reach + 1)}


class TestClips:
    def test_training_and_validation_share_no_source_frame(
        self, clips: ModuleType, footage: Path, tmp_path: Path
    ) -> None:
        clips.make_clips(footage, tmp_path / 'demo')
        train, val = (_source_frames(tmp_path / 'demo' / part / 'gt', clips.EXPOSURE) for part in ('train', 'val'))
        assert not train & val
        assert train == {*range(0, 81), *range(151, 190)}
        assert val == set(range(81, 151))

    def test_complete_clips_are_reused(self, clips: ModuleType, footage: Path, tmp_path: Path) -> None:
        recipe = clips.make_clips(footage, tmp_path / 'demo')
        frame = tmp_path / 'demo/val/lq/shot1_0/00000000.png'
        written = frame.stat().st_mtime_ns
        assert clips.make_clips(footage, tmp_path / 'demo') == recipe
        assert frame.stat().st_mtime_ns == written

    def test_incomplete_clips_are_made_anew(self, clips: ModuleType, footage: Path, tmp_path: Path) -> None:
        clips.make_clips(footage, tmp_path / 'demo')
        frame = tmp_path / 'demo/val/lq/shot1_0/00000000.png'
        frame.unlink()
        clips.make_clips(footage, tmp_path / 'demo')
        assert frame.is_file()

    def test_another_window_is_made_anew(self, clips: ModuleType, footage: Path, tmp_path: Path) -> None:
        clips.make_clips(footage, tmp_path / 'demo')
        clips.make_clips(footage, tmp_path / 'demo', window=(8, 12))
        assert cv2.imread(str(tmp_path / 'demo/val/lq/shot1_0/00000000.png')).shape == (8, 12, 3)

    def test_footage_that_ends_too_early(self, clips: ModuleType, footage: Path, tmp_path: Path) -> None:
        content = footage.read_bytes()
        footage.write_bytes(content[: len(content) // 2])
        with pytest.raises(DBLRError, match=r'footage\.mkv'):
            clips.make_clips(footage, tmp_path / 'demo')
        assert not (tmp_path / 'demo').exists()


def test_crop_is_where_pictures_differ_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from demo_pictures import telling_crop

    sharp = np.full((60, 80, 3), 100, np.uint8)
    blurry = sharp.copy()
    blurry[5, 70] = 110
    blurry[30:40, 20:35] = 90
    assert telling_crop(blurry, sharp, (10, 15)) == (slice(30, 40), slice(20, 35))  # all is flat
    rng = np.random.default_rng(0)
    for low, high in ((0, 30), (235, 256)):  # nearly black or white, where the two differ most
        sharp[:], blurry[:] = rng.integers(low, high, (60, 80, 1)), 128
        sharp[10:30, 40:70] = rng.integers(0, 256, (20, 30, 1))
        blurry[10:30, 40:70] = sharp[10:30, 40:70] // 2 + 63
        shown = sharp[telling_crop(blurry, sharp, (10, 15))]
        assert shown.std() > 16 and 40 <= shown.mean() <= 215


def test_a_demo_without_gain_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from demo_report import check_gain

    figures = {'blurry input': {'mean': {'psnr': 25.2}}, 'DBLRNet': {'mean': {'psnr': 25.2}}}
    with pytest.raises(DBLRError, match='does not beat'):
        check_gain(figures)
    figures['DBLRNet']['mean']['psnr'] = 27.0
    check_gain(figures)


@pytest.mark.slow
def test_smoke_run(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / 'demo.py'), '--fast']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / 'results/demo_fast/results/demo'
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['smoke_run']
    assert summary['protocol']['name'] == 'basicsr'
    assert list(summary['figures']) == ['blurry input', 'DBLRNet', 'DBLRGAN']
    assert {'python', 'torch', 'basicsr'} <= summary['versions'].keys()
    assert (out / 'table.txt').read_text() in done.stdout
    for label, entry in summary['figures'].items():
        assert f'{entry["mean"]["psnr"]:.2f} / {entry["mean"]["ssim"]:.4f}' in done.stdout, label
        assert entry['clips'].keys() == {'shot1_0', 'shot2_0'}
    for picture in ('comparison.png', 'training.png'):
        image = cv2.imread(str(out / picture))
        assert image.shape[1] > 1000 and image.std() > 20


@pytest.mark.slow
def test_goes_on_where_ctrl_c_stopped_it(tmp_path: Path) -> None:
    """Stopped in its first training, it says so in one line; run again, that training goes on from there."""
    command = [sys.executable, str(SCRIPTS / 'demo.py'), '--fast']
    root = tmp_path / 'results/demo_fast'
    with (tmp_path / 'output').open('wb') as output:
        run = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT)
        while not list(root.glob('experiments/demo_DBLRNet/train_*.log')):
            assert run.poll() is None, (tmp_path / 'output').read_text()
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        assert run.wait(120) == 130
    said = (tmp_path / 'output').read_text()
    assert 'Traceback' not in said and said.endswith('demo: stopped; the same command goes on from here\n'), said
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('--auto_resume') == 1 and 'demo_DBLRNet.yml --auto_resume' in done.stdout
    assert (root / 'results/demo/summary.json').is_file() and not (root / 'results/demo_progress.json').exists()


SETUP_PYTHON = """\
#!/usr/bin/env bash
if [ "$1 $2" = '-m venv' ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python && chmod +x .venv/bin/python; fi
if [ "$1 $2" = '-m pip' ]; then seq 100; fi
if [ "$*" = "$(cat fails 2>/dev/null)" ]; then exit 1; fi
"""


@pytest.mark.parametrize('fails', [False, True])
def test_setup_prints_a_line_a_step(tmp_path: Path, fails: bool) -> None:
    """The real script with an interpreter that installs nothing but says as much as pip."""
    for name in ('setup.cfg', 'pyproject.toml', 'constraints.txt'):
        (tmp_path / name).write_text('')
    (tmp_path / 'scripts').mkdir()
    shutil.copy(SCRIPTS / 'setup.sh', tmp_path / 'scripts')
    python = tmp_path / 'python'
    python.write_text(SETUP_PYTHON)
    python.chmod(0o755)
    (tmp_path / 'fails').write_text('-c import dblr_plugin' if fails else 'nothing')
    environment = {**os.environ, 'PYTHON': str(python)}
    done = subprocess.run(['bash', 'scripts/setup.sh'], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == fails
    lines = done.stdout.splitlines()
    assert 4 <= len(lines) <= 7 and all(line.startswith('setup: ') for line in lines), done.stdout
    assert (tmp_path / '.venv/setup.log').read_text().count('\n100\n') == 4
    assert done.stderr.strip().endswith('all that it said is in .venv/setup.log') == fails
