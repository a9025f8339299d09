"""Kill it anywhere, it continues as if nothing had happened."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import cv2
import pytest
import torch
from processes import Run, dblr, write_options

from dblr_plugin.files import sha256_of
from dblr_plugin.training.checkpoint_folder import CheckpointFolder

pytestmark = pytest.mark.slow

KEPT = 3


@pytest.fixture
def options(gan_options: dict) -> dict:
    """DBLRGAN with EMA and augmentation; saves and validates at different iterations."""
    gan_options['datasets']['train'] |= {'batch_size_per_gpu': 2, 'use_rot': True, 'gt_size': 16}
    gan_options['train'] |= {'ema_decay': 0.9, 'total_iter': 10}
    gan_options['val']['val_freq'] = 3
    gan_options['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False}
    return gan_options


class Folder:
    """Where a run works, and what it leaves."""

    def __init__(self, root: Path, options: dict) -> None:
        root.mkdir()
        self.root = root
        self.options = write_options(root / 'gan.yml', options)
        self.run = root / 'experiments/gan'
        self.checkpoints = CheckpointFolder(self.run / 'models', self.run / 'training_states')

    def newest(self) -> int:
        return max(self.checkpoints.iterations(), default=0)

    def unfinished(self, since: float) -> list[Path]:
        """Files that a run was writing, or is writing now; older ones are of runs before it."""
        found = []
        for path in self.run.rglob('.*.partial'):
            with contextlib.suppress(FileNotFoundError):  # finished in this moment
                found += [path] if path.stat().st_mtime >= since else []
        return found

    def results(self) -> dict[str, object]:
        """All that a training is for: the last networks and state, the figures, the pictures."""
        kept = [*self.run.glob('models/*_latest.pth'), *self.run.glob('visualization/**/*.png')]
        results = {path.relative_to(self.run).as_posix(): path.read_bytes() for path in kept}
        results['figures'] = json.loads((self.run / 'metrics.json').read_text())
        # not its bytes: pickle writes a string that occurs twice in two ways
        results['state'] = plain(torch.load(self.checkpoints.state_path(self.newest())))
        return results


def plain(content: object) -> object:
    """Nested containers with lists in place of tensors, which == compares bit by bit."""
    if isinstance(content, torch.Tensor):
        return content.dtype, content.tolist()
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    return [plain(value) for value in content] if isinstance(content, list | tuple) else content


def uninterrupted(folder: Folder) -> dict[str, object]:
    result = dblr('train', '-opt', folder.options, cwd=folder.root)
    assert result.returncode == 0, result.stderr
    return folder.results()


def resumed(folder: Folder) -> Run:
    """A run that goes on from what there is."""
    return Run('train', '-opt', folder.options, '--auto_resume', cwd=folder.root)


def assert_same(results: dict[str, object], expected: dict[str, object]) -> None:
    assert results.keys() == expected.keys()
    assert not [name for name, content in expected.items() if results[name] != content]


# ---------------------------------------------------------------------- kill -9


def moments(kills: int, rng: random.Random) -> list[str]:
    """Kinds of moments to kill at: in a save, before training has begun, or any; in the beginning there is no save."""
    kinds = ['save'] * (3 * kills // 8) + ['start'] * (kills // 8)
    kinds += ['any'] * (kills - 1 - len(kinds))
    rng.shuffle(kinds)
    return ['any', *kinds]


def reach(moment: str, run: Run, folder: Folder, rng: random.Random, start_up: float) -> bool:
    """Waits for a moment of that kind; False if the run has ended before."""
    began = time.time()
    if moment == 'start':
        time.sleep(rng.uniform(0, start_up))
        return True
    goal = max(folder.newest() + 2 * rng.choice((0, 1, 1, 2)), 4)
    if not run.until(lambda: 'Start training' in run.stderr) or not run.until(lambda: folder.newest() >= goal):
        return False
    if moment == 'save' and not run.until(lambda: folder.unfinished(began), every=2e-4):
        return False
    time.sleep(rng.uniform(0, 0.01 if moment == 'save' else 0.15))  # a save takes that long, and two iterations
    return True


def check_checkpoints(folder: Folder) -> None:
    """What a process that was killed leaves: complete pairs, and ``latest`` networks that belong to one of them."""
    digests = {'net_g': set(), 'net_d': set()}
    # the oldest may be on its way out: its networks go first
    for iteration in folder.checkpoints.iterations()[-KEPT:]:
        state = folder.checkpoints.read(iteration, list(digests))
        for name in digests:
            digests[name].add(state['networks'][name])
    for name in digests:
        assert sha256_of(folder.checkpoints.network_path(name, 'latest')) in digests[name]


def test_kills_change_nothing(options, kills, tmp_path):
    total = 10 + 3 * kills
    options['train']['total_iter'] = total
    options['logger']['max_keep_ckpts'] = KEPT
    options['val']['val_freq'] = 10
    expected = uninterrupted(Folder(tmp_path / 'whole', options))
    folder = Folder(tmp_path / 'killed', options)
    rng = random.Random(0)
    start_up, in_saves, progress = 1.0, 0, []
    for moment in moments(kills, rng):
        before, began = folder.newest(), time.time()
        run = resumed(folder)
        assert reach(moment, run, folder, rng, start_up), run.stderr
        assert run.kill() == -signal.SIGKILL
        if moment == 'start':
            start_up = time.time() - began
        assert 'skipping' not in run.stderr
        assert f'iter: {before}\n' in run.stderr or 'Start training' not in run.stderr
        check_checkpoints(folder)
        in_saves += bool(folder.unfinished(began))
        progress.append(folder.newest() - before)
    assert sum(done > 0 for done in progress) > kills / 2
    assert in_saves >= kills // 8
    run = resumed(folder)
    assert run.wait() == 0, run.stderr
    assert_same(folder.results(), expected)
    kept = [total - 4, total - 2, total]
    assert folder.checkpoints.iterations() == kept
    names = {f'net_{net}_{at}.pth' for net in 'gd' for at in (*kept, 'latest')}
    assert {path.name for path in (folder.run / 'models').iterdir()} == names


# ---------------------------------------------------------------------- signals


def stopped_at(output: str) -> int:
    """The iteration at which a run says to have stopped."""
    return int(re.search(r'Stopped and saved at iteration (\d+); --auto_resume', output).group(1))


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_loaders_workers_too(options, tmp_path, number):
    options['train']['total_iter'] = 20
    options['datasets']['train'] |= {'num_worker_per_gpu': 2, 'persistent_workers': True}
    expected = uninterrupted(Folder(tmp_path / 'whole', options))
    folder = Folder(tmp_path / 'stopped', options)
    stopped = Run('train', '-opt', folder.options, cwd=folder.root)
    assert stopped.until(lambda: re.search(r'iter:\s+3,', stopped.stderr)), stopped.stderr
    for _ in range(2):  # people press Ctrl-C again
        os.killpg(stopped.pid, number)
    assert stopped.wait() == 128 + number
    assert 3 <= stopped_at(stopped.stderr) == folder.newest() < 20
    assert 'stopping after this iteration' in stopped.stderr and 'Traceback' not in stopped.stderr
    run = resumed(folder)
    assert run.wait() == 0, run.stderr
    assert f'iter: {stopped_at(stopped.stderr)}.' in run.stderr
    assert_same(folder.results(), expected)


@pytest.fixture
def large_footage(footage, tmp_path) -> Path:
    """Frames that take a while to restore."""
    root = shutil.copytree(footage / 'val', tmp_path / 'large')
    for path in root.rglob('*.png'):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (144, 144)))
    return root


def test_a_validation_cut_short_is_made_up_for(options, large_footage, tmp_path):
    """SIGTERM to all processes, as SLURM sends it, in the second of two sets; only that one is validated again."""
    second = {**options['datasets']['val'], 'name': 'W'}
    second |= {f'dataroot_{side}': str(large_footage / side) for side in ('lq', 'gt')}
    options['datasets']['val_2'] = second
    options['datasets']['train']['num_worker_per_gpu'] = 1
    options['train']['total_iter'] = 4
    options['val']['pbar'] = True
    expected = uninterrupted(Folder(tmp_path / 'whole', options))
    folder = Folder(tmp_path / 'stopped', options)
    stopped = Run('train', '-opt', folder.options, cwd=folder.root)
    assert stopped.until(lambda: 'Test W: ' in stopped.stderr), stopped.stderr
    os.killpg(stopped.pid, signal.SIGTERM)
    assert stopped.wait() == 128 + signal.SIGTERM
    assert stopped_at(stopped.stderr) == folder.newest() == 3  # which is no iteration to save at
    figures = json.loads((folder.run / 'metrics.json').read_text())
    assert [(entry['dataset'], entry['iter']) for entry in figures] == [('V', 3)]
    run = resumed(folder)
    assert run.wait() == 0, run.stderr
    assert run.stderr.index('Validation W') < run.stderr.index('Start training') < run.stderr.index('Validation V')
    assert_same(folder.results(), expected)
