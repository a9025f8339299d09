"""scripts/gpu_check.sh works on the first try on a GPU: all that needs none is run here, in small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_step_runs_without_a_gpu(tmp_path):
    environment = os.environ | {'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    environment['CUDA_VISIBLE_DEVICES'] = ''
    command = ['bash', str(ROOT / 'scripts/gpu_check.sh'), '--toy', str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    logs = '\n'.join(path.read_text()[-1500:] for path in tmp_path.glob('cpu/*.log'))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    rows = [line.split('\t') for line in (tmp_path / 'cpu/summary.tsv').read_text().splitlines()]
    assert [row[0] for row in rows] == ['step', 'tests', 'metrics', 'clips', 'demo_training']
    assert (tmp_path / 'cpu/metrics.json').exists()
    assert list((tmp_path / 'cpu/demo/experiments/demo_DBLRNet/models').glob('net_g_latest.pth'))
