"""A benchmark in miniature: interrupted in its first training, run again, and once more; shared by all tests."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from processes import Run, dblr, write_options
from shared import made_once
from tiny_benchmark import METRIC, Ran, tiny_benchmark, write_theirs

from dblr_plugin.yaml_file import import_files


@pytest.fixture(scope='session')
def ran(request: pytest.FixtureRequest, footage: Path) -> Ran:
    """``dblr benchmark``, stopped by SIGTERM in the training of Net, run again, and once more for what succeeded."""
    import_files([METRIC])  # which reports are read with
    return made_once(request, 'benchmark', partial(run_thrice, footage))


def run_thrice(footage: Path, root: Path) -> Ran:
    """The three runs, in a fresh folder."""
    options = Path(__file__).resolve().parents[2] / 'options'
    for name in ('train_DBLRNet.yml', 'train_DBLRGAN.yml', 'quoted_DVD.yml'):
        (root / name.replace('quoted_DVD', 'quoted')).symlink_to(options / name)
    write_theirs(root / 'theirs.pth')
    write_options(root / 'tiny.yml', tiny_benchmark(footage))
    ran = Ran(root, [], [], {})
    first = Run('benchmark', '-opt', 'tiny.yml', cwd=root)
    log = ran.folder / 'Net/train.log'
    assert first.until(lambda: log.exists() and 'iter:       3' in log.read_text()), first.stderr
    os.kill(first.pid, signal.SIGTERM)
    ran.codes.append(first.wait())
    ran.outputs.append(first.stdout + first.stderr)
    for only in ([], ['--only', 'Theirs | with a bar', 'Net']):
        ran.written = {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob('*') if p.is_file()}
        done = dblr('benchmark', '-opt', 'tiny.yml', *only, cwd=root, timeout=900)
        ran.codes.append(done.returncode)
        ran.outputs.append(done.stdout + done.stderr)
    return ran
