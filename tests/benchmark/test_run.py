"""The command: methods that fail, runs stopped or with nothing to do, figures as dblr test's; the page's example."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY
from processes import Run, dblr, write_options
from tiny_benchmark import ITERATIONS, Ran, tiny_benchmark
from torch.utils.data import default_collate

from dblr_plugin.benchmark.crops import choose_crops, window_errors, window_of
from dblr_plugin.benchmark.training import _last_words
from dblr_plugin.data.train_sampler import SampleIndex
from dblr_plugin.evaluation.evaluate import evaluate
from dblr_plugin.evaluation.protocols import PROTOCOLS
from dblr_plugin.link import options_folder
from dblr_plugin.training.objectives import check_batch
from dblr_plugin.yaml_file import import_files

pytestmark = pytest.mark.slow


def entry(ran: Ran, name: str) -> dict:
    return next(entry for entry in ran.report['methods'] if entry['name'] == name)


def test_a_stopped_run_goes_on_within_the_training(ran: Ran) -> None:
    assert ran.codes[0] == 143
    assert 'run the same command again to continue' in ran.outputs[0]
    log = (ran.folder / 'Net/train.log').read_text()
    stopped = int(log.split('Stopped and saved at iteration ')[1].split(';')[0])
    assert 3 <= stopped < ITERATIONS
    assert f'Resuming training from epoch: 0, iter: {stopped}.' in log
    assert log.count('iter:       3,') == 1  # not trained twice
    iterations, _ = entry(ran, 'Net')['curve']
    assert iterations == [ITERATIONS // 2, ITERATIONS]
    assert 'Blurry input: testing' in ran.outputs[0]
    assert 'Blurry input: testing' not in ran.outputs[1]


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells a process that its parent is gone')
def test_a_killed_run_leaves_no_training_behind(footage: Path, tmp_path: Path) -> None:
    """``kill -9`` lets it hand nothing on: neither to torchrun nor to the processes that it has started."""
    benchmark = tiny_benchmark(footage)
    net = {'options': str(options_folder() / 'train_DBLRNet.yml'), 'set': benchmark['methods']['Net']['set']}
    net['set'] |= {'train.total_iter': 10**6, 'val.val_freq': 10**6, 'datasets.train.num_worker_per_gpu': 1}
    write_options(tmp_path / 'tiny.yml', benchmark | {'methods': {'Net': net}, 'quoted': None})
    run = Run('benchmark', '-opt', 'tiny.yml', '--nproc', 2, cwd=tmp_path, GLOO_SOCKET_IFNAME='lo')
    log = tmp_path / 'benchmarks/tiny/Net/train.log'
    assert run.until(lambda: log.exists() and 'iter:       3' in log.read_text(), every=0.05), run.stderr
    started = descendants(run.pid)
    assert len(started) >= 7  # torchrun, two ranks, and the fork server and worker of each
    run.kill()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """The processes that it has started, and those that they have."""
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return [number for child in map(int, children) for number in (child, *descendants(child))]


def is_running(pid: int) -> bool:
    stat = Path(f'/proc/{pid}/stat')
    return stat.exists() and stat.read_text().rpartition(')')[2].split()[0] != 'Z'


def test_a_failure_is_told_and_the_rest_is_done(ran: Ran) -> None:
    assert ran.codes[1:] == [1, 1]
    broken = entry(ran, 'Broken')
    assert broken['status'] == 'failed'
    assert broken['reason'].startswith('training failed: iteration 2: loss or gradient is not finite')
    done = [e['name'] for e in ran.report['methods'] if e['status'] == 'measured']
    assert done == ['Blurry input', 'Net', 'Theirs | with a bar']
    assert '- Broken failed: training failed: iteration 2' in (ran.folder / 'report.md').read_text()


def test_a_run_with_nothing_missing_changes_nothing(ran: Ran) -> None:
    assert 'training' not in ran.outputs[2].split('|')[0] and 'testing' not in ran.outputs[2]
    now = {str(p.relative_to(ran.root)): p.stat().st_mtime_ns for p in ran.root.rglob('*') if p.is_file()}
    changed = {name for name in now if now[name] != ran.written.get(name)}
    assert {Path(name).name for name in changed} <= {'test.yml'}


def test_figures_are_those_of_dblr_test(ran: Ran) -> None:
    done = dblr('test', '-opt', 'benchmarks/tiny/Theirs_with_a_bar/test.yml', cwd=ran.root)
    assert done.returncode == 0, done.stderr
    tested = json.loads((ran.root / 'results/tiny_Theirs_with_a_bar_test/metrics.json').read_text())
    ours = entry(ran, 'Theirs | with a bar')
    for figures in tested:
        protocol = figures['protocol']
        assert ours['clips'][protocol] == figures['clips']
        assert list(figures['mean']) == ['psnr', 'ssim', 'ssim_3d', 'gradient']
        for metric, value in figures['mean'].items():
            assert ours['figures'][f'{metric}_{protocol}'] == value
    assert [figures['protocol'] for figures in tested] == ['basicsr', 'vrt-matlab']


def test_the_blurry_input_is_measured_without_a_network(ran: Ran, footage: Path) -> None:
    expected = evaluate(footage / 'val/lq', footage / 'val/gt', [PROTOCOLS['basicsr']], progress=False)[0]
    blurry = entry(ran, 'Blurry input')
    assert blurry['figures']['psnr_basicsr'] == pytest.approx(expected['mean']['psnr'], abs=1e-9)
    assert blurry['figures']['macs'] == blurry['figures']['parameters'] == 0


def test_frames_are_kept(ran: Ran, footage: Path) -> None:
    frames = sorted(path.relative_to(footage / 'val/gt') for path in (footage / 'val/gt').rglob('*.png'))
    for method in ('Blurry_input', 'Net', 'Theirs_with_a_bar'):
        folder = ran.folder / method / 'frames'
        assert sorted(path.relative_to(folder) for path in folder.rglob('*.png')) == frames
    assert np.array_equal(
        *(cv2.imread(str(root / frames[0])) for root in (footage / 'val/lq', ran.folder / 'Blurry_input/frames'))
    )


def test_a_training_starts_from_the_network_trained_here(ran: Ran) -> None:
    options = yaml.safe_load((ran.folder / 'Broken/train.yml').read_text())
    assert options['path']['pretrain_network_g'] == 'experiments/tiny_Net/models/net_g_latest.pth'
    log = (ran.folder / 'Broken/train.log').read_text()
    assert 'Loaded DBLRNet from experiments/tiny_Net/models/net_g_latest.pth' in log
    assert options['val']['protocol'] == 'basicsr'  # all trainings are validated alike


def test_crops_follow_the_rule(ran: Ran, footage: Path) -> None:
    """Found again by looking at every window of every frame."""
    h, w = window_of(48, 48)
    methods = ('Blurry_input', 'Net', 'Theirs_with_a_bar')
    for shown in ran.report['crops']['shown']:
        found = {}
        for truth_path in sorted((footage / 'val/gt' / shown['clip']).iterdir()):
            truth = cv2.imread(str(truth_path)).astype(float)
            restored = [cv2.imread(str(ran.folder / m / 'frames' / shown['clip'] / truth_path.name)) for m in methods]
            for top in range(0, 48 - h + 1, h // 2):
                for left in range(0, 48 - w + 1, w // 2):
                    cut = np.s_[top : top + h, left : left + w]
                    errors = [np.square(frame[cut] - truth[cut]).mean() for frame in restored]
                    found[truth_path.stem, top, left] = np.std(errors)
        best = max(found, key=found.get)
        assert best == (shown['name'], shown['top'], shown['left'])
        assert shown['deviation'] == pytest.approx(found[best], rel=1e-4)


def test_of_many_clips_the_four_with_the_largest_difference_are_shown() -> None:
    rng = np.random.default_rng(0)
    clips = {f'c{number}': number for number in (3, 9, 1, 7, 5, 8)}
    truth = rng.integers(0, 256, (48, 64, 3))
    flat = window_errors(truth, truth)[None]
    errors = {'a': {clip: flat for clip in clips}, 'b': {clip: flat + size for clip, size in clips.items()}}
    about = {'frames': [4], 'names': list('abcde'), 'size': (48, 64)}
    crops = choose_crops(errors, dict.fromkeys(clips, about))
    assert [crop.clip for crop in crops] == ['c9', 'c7', 'c5', 'c8']
    assert {(crop.frame, crop.name) for crop in crops} == {(4, 'e')}


@pytest.mark.parametrize(('low', 'high'), [(0, 30), (235, 256), (128, 130)])
def test_flat_black_and_white_windows_are_not_shown(low: int, high: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(low, high, (240, 320, 3)).astype(np.uint8)
    truth[120:, 160:] = rng.integers(0, 256, (120, 160, 1))
    restored = truth.copy()
    restored[:60, :80] = 255 - restored[:60, :80]  # the largest error, where there is nothing to see
    restored[120:, 160:] //= 2
    errors = {'a': {'clip': window_errors(restored, truth)[None]}, 'b': {'clip': window_errors(truth, truth)[None]}}
    (crop,) = choose_crops(errors, {'clip': {'frames': [0], 'names': ['0'], 'size': (240, 320)}})
    assert (crop.top, crop.left) == (120, 160)


def test_provenance_holds_what_was_read(ran: Ran) -> None:
    held = ran.report['provenance']
    files = {file['path']: file['sha256'] for file in held['files']}
    for name in ('tiny.yml', 'train_DBLRNet.yml', 'experiments/tiny_Net/models/net_g_latest.pth'):
        assert files[name] == hashlib.sha256((ran.root / name).read_bytes()).hexdigest()
    assert held['commands'] == ['make the footage', 'dblr benchmark -opt tiny.yml']
    assert set(held['data']) == {'train lq', 'train gt', 'test lq', 'test gt'}


@pytest.mark.parametrize(('lines', 'code', 'reason'), [
    (['loading', 'dblr: error: no batch came', 'Traceback (most recent call last):', 'OSError: x'], 1,
     'no batch came'),
    (['Traceback (most recent call last):', '  x = 1 / 0', 'ZeroDivisionError: division by zero', ''], 1,
     'ZeroDivisionError: division by zero'),
    (['[rank1]: torch.OutOfMemoryError: CUDA out of memory'], 1, 'torch.OutOfMemoryError: CUDA out of memory'),
    (['[rank0]: dblr: error: iteration 2: not finite', '[rank1]: dblr: error: another process has ended',
      'torch.distributed.elastic.multiprocessing.errors.ChildFailedError: '], 1, 'iteration 2: not finite'),
    (['dblr: error: 2 faults in the data:', '  a is missing', '  b is empty', 'Exception ignored'], 1,
     '2 faults in the data: a is missing; b is empty'),
    (['iter: 3'], -9, 'ended by signal 9'),
    (['usage: train', ''], 2, 'usage: train'),
    ([], 3, 'exit status 3'),
])  # fmt: skip
def test_reasons(lines: list[str], code: int, reason: str) -> None:
    assert _last_words(lines, code) == reason


PAGE = Path(__file__).resolve().parents[2] / 'docs/your_own_method.md'


def test_data_set_and_loss_of_the_page_work(footage: Path, tmp_path: Path) -> None:
    own = next(
        block for block in re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.M | re.S) if 'Noisy' in block
    )
    (tmp_path / 'own.py').write_text(own)
    import_files([tmp_path / 'own.py'])
    folders = {f'dataroot_{kind}': str(footage / 'train' / kind) for kind in ('lq', 'gt')}
    plain, noisy = (
        DATASET_REGISTRY.get(name)(folders | {'gt_size': 16, 'sigma': 0.1})[SampleIndex(0, seed=1)]
        for name in ('VideoDeblurDataset', 'NoisyDataset')
    )
    assert torch.equal(noisy['gt'], plain['gt'])
    assert 0.08 < (noisy['lq'] - plain['lq']).std() < 0.12
    check_batch(default_collate([noisy]), 5)
    assert LOSS_REGISTRY.get('EdgeLoss')()(noisy['lq'], plain['lq']) > 0


@pytest.mark.slow
def test_the_page_does_what_it_says(footage: Path, tmp_path: Path) -> None:
    """Its files are saved under the names it gives, its commands run; small footage stands for the demo's clips."""
    blocks = re.findall(r'^```(\w+)\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / 'options').symlink_to(options_folder())
    (tmp_path / 'datasets').mkdir()
    (tmp_path / 'datasets/demo').symlink_to(footage)
    names = re.findall(r'Save this as `([\w.]+)`', PAGE.read_text())
    for name, (_, content) in zip(names, [b for b in blocks if b[0] != 'bash'], strict=True):
        (tmp_path / name).write_text(content)
    commands = [content.strip() for kind, content in blocks if kind == 'bash']
    assert commands.pop(0) == 'python scripts/demo_clips.py'
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == 'dblr'
        done = dblr(*arguments, cwd=tmp_path, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
    blurry, own = json.loads((tmp_path / 'benchmarks/mine/report.json').read_text())['methods']
    assert own['figures']['psnr_basicsr'] > blurry['figures']['psnr_basicsr'] + 0.5  # it has learnt something
    assert own['figures']['parameters'] == 15 * 16 * 25 + 16 * 16 * 9 + 16 * 3 * 9 + 16 + 16 + 3
    for path in re.findall(r'`((?:benchmarks|experiments)/[^`]+)`', PAGE.read_text()):
        assert (tmp_path / path.replace('\n', '')).is_file()
    tested = json.loads((tmp_path / 'results/mine_Sharpener_test/metrics.json').read_text())
    assert tested[0]['mean']['psnr'] == own['figures']['psnr_basicsr']
