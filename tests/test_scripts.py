"""Scripts: the demo's clips and option files, set-up, the check on a GPU in small, and what sensitivity.py compares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import av
import cv2
import demo_clips
import numpy as np
import pytest
import torch
import yaml

from dblr_plugin.archs import DBLRDiscriminator, DBLRNet
from dblr_plugin.benchmark.plan import read_plan
from dblr_plugin.errors import DBLRError

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS, OPTIONS = ROOT / 'scripts', ROOT / 'options'


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
    def test_training_and_validation_share_no_source_frame(self, footage: Path, tmp_path: Path) -> None:
        demo_clips.make_clips(footage, tmp_path / 'demo')
        train, val = (_source_frames(tmp_path / 'demo' / part / 'gt', demo_clips.EXPOSURE) for part in ('train', 'val'))
        assert not train & val
        assert train == {*range(0, 81), *range(151, 190)}
        assert val == set(range(81, 151))

    def test_complete_clips_are_reused(self, footage: Path, tmp_path: Path) -> None:
        recipe = demo_clips.make_clips(footage, tmp_path / 'demo')
        frame = tmp_path / 'demo/val/lq/shot1_0/00000000.png'
        written = frame.stat().st_mtime_ns
        assert demo_clips.make_clips(footage, tmp_path / 'demo') == recipe
        assert frame.stat().st_mtime_ns == written

    @pytest.mark.slow
    def test_incomplete_clips_and_another_window_are_made_anew(self, footage: Path, tmp_path: Path) -> None:
        demo_clips.make_clips(footage, tmp_path / 'demo')
        frame = tmp_path / 'demo/val/lq/shot1_0/00000000.png'
        frame.unlink()
        demo_clips.make_clips(footage, tmp_path / 'demo')
        assert frame.is_file()
        demo_clips.make_clips(footage, tmp_path / 'demo', window=(2, 4, 8, 12))
        assert cv2.imread(str(tmp_path / 'demo/val/lq/shot1_0/00000000.png')).shape == (8, 12, 3)

    def test_footage_that_ends_too_early(self, footage: Path, tmp_path: Path) -> None:
        content = footage.read_bytes()
        footage.write_bytes(content[: len(content) // 2])
        with pytest.raises(DBLRError, match=r'footage\.mkv'):
            demo_clips.make_clips(footage, tmp_path / 'demo')
        assert not (tmp_path / 'demo').exists()


def test_the_benchmark_trains_as_the_option_files_say(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``options/demo.yml`` changes nothing in the trainings, so that ``dblr train`` gives the same networks."""
    (tmp_path / 'options').symlink_to(OPTIONS)
    monkeypatch.chdir(tmp_path)
    demo_clips.make_clips(footage, Path('datasets/demo'))
    plan = read_plan('options/demo.yml')
    assert list(plan.methods) == ['Blurry input', 'DBLRNet', 'DBLRGAN']
    for name in ('DBLRNet', 'DBLRGAN'):
        method, options = plan.methods[name], yaml.safe_load((OPTIONS / f'demo_{name}.yml').read_text())
        options['val']['protocol'] = 'basicsr'
        assert method.training == options


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


@pytest.mark.slow
def test_every_step_runs_without_a_gpu(tmp_path):
    ours = {key: value for key, value in os.environ.items() if not key.startswith('PYTEST_')}  # reports of this run
    environment = ours | {'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    environment['CUDA_VISIBLE_DEVICES'] = ''
    command = ['bash', str(ROOT / 'scripts/gpu_check.sh'), '--toy', str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    logs = '\n'.join(path.read_text()[-1500:] for path in tmp_path.glob('cpu/*.log'))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    rows = [line.split('\t') for line in (tmp_path / 'cpu/summary.tsv').read_text().splitlines()]
    assert [row[0] for row in rows] == ['step', 'tests', 'metrics', 'clips', 'demo_training']
    assert (tmp_path / 'cpu/metrics.json').exists()
    assert list((tmp_path / 'cpu/demo/experiments/demo_DBLRNet/models').glob('net_g_latest.pth'))
