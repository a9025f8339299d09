"""Both trainers give the same weights from the same seed, also if the Runner is killed and resumed."""

import json

import numpy as np
import pytest
import torch
from processes import Run, dblr, write_options
from runs import TEST, TRAIN, BasicSRRun, as_config, five_iterations, run, scalars

from dblr_plugin import commands
from dblr_plugin.benchmark.plan import read_plan
from dblr_plugin.benchmark.run import run_benchmark
from dblr_plugin.restore.loading import load_network
from dblr_plugin.weights.checkpoint import load_state_dict, read_checkpoint


def assert_same(one: dict, two: dict) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.slow
def test_killed_and_resumed_run_equals_basicsr_and_its_weights_load(train_options, test_options, tmp_path, monkeypatch):
    options = five_iterations(train_options)
    theirs = BasicSRRun(options, tmp_path / 'basicsr')
    config = as_config(options)

    # killed at some time after its second iteration
    ours = tmp_path / 'runner'
    ours.mkdir()
    config.dump(ours / 'net.py')
    first = Run('net.py', cwd=ours, program=TRAIN)
    last = ours / 'work_dirs/net/last_checkpoint'
    assert first.until(lambda: last.exists() and last.read_text()), first.stderr
    first.kill()
    ours = ours.rename(tmp_path / 'moved')
    printed = run(config, ours, '--resume')
    assert 'Advance dataloader' in printed

    checkpoint = ours / 'work_dirs/net/iter_5.pth'
    assert_same(load_state_dict(checkpoint), theirs.weights('net_g', 5))
    logged = scalars(ours)
    losses = {entry['iter']: entry['l_pix'] for entry in logged if 'l_pix' in entry}
    np.testing.assert_allclose([losses[i + 1] for i in range(5)], theirs.losses()['l_pix'], rtol=1e-6)
    (figures,) = theirs.figures()
    assert {f'basicsr/{name}': value for name, value in figures['mean'].items()}.items() <= logged[-1].items()
    assert len(list(ours.glob('work_dirs/net/*/vis_data/strips/V/*_5.png'))) == 2

    # the Runner tests a checkpoint of BasicSR
    run(config, ours, theirs.checkpoint('net_g', 5), program=TEST)
    tested = next(ours.glob('work_dirs/net/*/*.json')).read_text()
    assert f'"basicsr/psnr": {figures["mean"]["psnr"]}' in tested

    # BasicSR tests a checkpoint of the Runner
    test_options['path']['pretrain_network_g'] = str(checkpoint)
    done = dblr('test', '-opt', write_options(tmp_path / 'test.yml', test_options), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'results/tested/metrics.json').read_text())[0]['mean'] == figures['mean']

    # the other commands load it too
    exported = tmp_path / 'net.safetensors'
    commands.main(['export', '--weights', str(checkpoint), '-o', str(exported)])
    assert_same(load_state_dict(exported), theirs.weights('net_g', 5))
    assert load_network(exported).options == load_network(checkpoint).options == options['network_g']

    benchmark = {
        'name': 'both', 'protocols': ['basicsr'], 'timing': None,
        'set': {f'datasets.val.{key}': options['datasets']['val'][key] for key in ('dataroot_lq', 'dataroot_gt')},
        'methods': {'Runner': {'network_g': options['network_g'], 'weights': str(checkpoint)}},
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    results = run_benchmark(read_plan(write_options(tmp_path / 'both.yml', benchmark)))
    assert not results.failures
    assert results.quality['Runner']['figures'][0]['mean']['psnr'] == figures['mean']['psnr']


@pytest.mark.slow
def test_two_processes_equal_basicsr_and_resume_as_one(gan_options, tmp_path):
    options = five_iterations(gan_options)
    options['datasets']['train']['batch_size_per_gpu'] = 2
    theirs = BasicSRRun(options, tmp_path / 'basicsr', processes=2)
    config, ours = as_config(options), tmp_path / 'runner'
    run(config, ours, processes=2)
    content = read_checkpoint(ours / 'work_dirs/net/iter_5.pth')
    assert_same(content['params'], theirs.weights('net_g', 5))
    assert_same(content['params_d'], theirs.weights('net_d', 5))
    (figures,) = theirs.figures()
    assert scalars(ours)[-1]['basicsr/psnr'] == figures['mean']['psnr']

    run(config, ours, '--resume', '--cfg-options', 'train_cfg.max_iters=6', 'train_dataloader.batch_size=4')
    log = scalars(ours)[-1]
    assert log['step'] == 6 and log['basicsr/psnr'] != figures['mean']['psnr']
    names = ('l_g_pix', 'l_g_gan', 'l_d_real', 'l_d_fake', 'out_d_real', 'out_d_fake', 'p_d_real', 'p_d_fake')
    assert set(names) <= scalars(ours)[-2].keys()
