"""Reports of what is not complete: all methods failed, no curve was drawn, files were removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import write_options

from dblr_plugin.benchmark.pages import markdown_page
from dblr_plugin.benchmark.plan import Plan, read_plan
from dblr_plugin.benchmark.report import write_report
from dblr_plugin.benchmark.run import Results, run_benchmark
from dblr_plugin.link import options_folder

FOLDER = Path('benchmarks/gaps')
INPUT = {'network_g': {'type': 'BlurryInput'}}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan_of(footage: Path, methods: dict[str, dict], **others: object) -> Plan:
    roots = {f'datasets.val.dataroot_{side}': str(footage / 'val' / side) for side in ('lq', 'gt')}
    content = {'name': 'gaps', 'set': roots, 'methods': methods, **others}
    return read_plan(write_options(Path('gaps.yml'), content))


def test_a_method_whose_files_were_removed_is_tested_again(footage: Path) -> None:
    """The report shows crops of its frames."""
    plan = plan_of(footage, {'Input': INPUT})
    run_benchmark(plan)
    said: list[str] = []
    for removed in ('frames/v/00000002.png', 'window_errors.npz'):
        (FOLDER / 'Input' / removed).unlink()
        assert 'Input' in run_benchmark(plan, tell=said.append).quality
        assert said.pop() == 'Input: testing' and (FOLDER / 'Input' / removed).is_file()
        run_benchmark(plan, tell=said.append)
        assert not said


@pytest.mark.slow
def test_if_all_methods_fail_the_report_says_so(footage: Path) -> None:
    torch.save({'params': {'x': torch.zeros(1)}}, 'other.pth')
    network = {'type': 'DBLRNet', 'num_feat': 4, 'num_block': 1}
    plan = plan_of(footage, {'Net': {'network_g': network, 'weights': 'other.pth'}})
    page = write_report(plan, run_benchmark(plan)).read_text()
    assert '| Net | failed |' in page and '- Net failed: other.pth: not a checkpoint of this DBLRNet' in page
    assert '## Clips' not in page and 'plots/' not in page


@pytest.mark.slow
def test_files_removed_from_the_report_are_written_again(footage: Path) -> None:
    plan = plan_of(footage, {'Input': INPUT})
    results = run_benchmark(plan)
    write_report(plan, results)
    for name in ('report.csv', 'plots/clips_dark.png'):
        (FOLDER / name).unlink()
        write_report(plan, results)
        assert (FOLDER / name).is_file(), name


def test_a_network_tested_without_weights_is_named(footage: Path) -> None:
    plan = plan_of(footage, {'Input': INPUT, 'Net': {'network_g': {'type': 'DBLRNet'}}})
    results = Results(complexity={'Input': {'parameters': 0, 'macs': 0}, 'Net': {'parameters': 9, 'macs': 9}})
    notes = json.loads(write_report(plan, results).with_suffix('.json').read_text())['notes']
    named = [note for note in notes if 'no weights are named' in note]
    assert named == ['Net was tested with the parameters its network is built with, as no weights are named.']


def test_metrics_that_do_not_fit_the_frames_are_named_before_a_training(footage: Path) -> None:
    roots = {f'datasets.train.dataroot_{side}': str(footage / 'train' / side) for side in ('lq', 'gt')}
    net = {'options': str(options_folder() / 'train_DBLRNet.yml'), 'set': {**roots, 'datasets.train.gt_size': 32}}
    plan = plan_of(footage, {'Input': INPUT, 'Net': net}, metrics='ms_ssim')
    page = write_report(plan, run_benchmark(plan)).read_text()
    for name in ('Input', 'Net'):
        fault = "failed: 2 faults in the sizes of frames: clip 'v' of 48x48, protocol basicsr: MS-SSIM needs"
        assert f'- {name} {fault}' in page
    assert not (FOLDER / 'Net/train.log').exists()


def test_a_training_on_synthetic_motion_has_sharp_images_alone(footage: Path) -> None:
    train_set = {'name': 'T', 'type': 'SyntheticMotionDataset', 'dataroot_gt': str(footage / 'train/gt'), 'gt_size': 32}
    changes = {'datasets.train': {**train_set, 'batch_size_per_gpu': 1, 'num_worker_per_gpu': 0}}
    net = {'options': str(options_folder() / 'train_DBLRNet.yml'), 'set': changes}
    page = write_report(plan_of(footage, {'Input': INPUT, 'Net': net}), Results()).read_text()
    data = [line.split(':')[0] for line in page.splitlines() if line.startswith('- Data, ')]
    assert data == ['- Data, train gt', '- Data, test lq', '- Data, test gt']


@pytest.mark.slow
def test_a_training_without_validations_has_no_curve(footage: Path) -> None:
    plan = plan_of(footage, {'Input': INPUT})
    write_report(plan, run_benchmark(plan))
    report = json.loads((FOLDER / 'report.json').read_text())
    report['methods'][0]['training'] = {'iterations': 5, 'crop': 32, 'starts_from': None, 'seconds': 90.0}
    report['methods'][0]['clips']['basicsr']['v'] = {'psnr': 'nan', 'ssim': 'nan'}  # in JSON, of a diverged network
    page = markdown_page(report)
    assert '| Input | nan / nan |' in page
    assert '| Input | 5 | 32 | – | 1.5 |' in page and 'plots/training' not in page and 'plots/clips' in page
