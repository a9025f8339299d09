"""Training, testing and resuming, on one and two processes; test_distributed.py has torchrun start them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from processes import dblr, write_options

pytestmark = pytest.mark.slow


def train(options: dict, cwd: Path, *arguments: str, processes: int = 1):
    """Trains and returns the finished process; several processes without any launcher flag."""
    path = write_options(cwd / f'{options["name"]}.yml', options)
    result = dblr('train', '-opt', path, *arguments, cwd=cwd, processes=processes)
    assert result.returncode == 0, result.stderr
    return result


def without_gan(options: dict) -> dict:
    """The same training with the content loss alone."""
    rest = {key: value for key, value in options.items() if key != 'network_d'}
    train_options = {key: value for key, value in options['train'].items() if key not in ('optim_d', 'gan_opt')}
    return {**rest, 'name': 'net', 'model_type': 'VideoDeblurModel', 'train': train_options}


def weights(cwd: Path, name: str, net: str = 'net_g', at: str = 'latest') -> torch.Tensor:
    params = torch.load(cwd / f'experiments/{name}/models/{net}_{at}.pth')['params']
    return torch.cat([v.flatten().double() for k, v in params.items() if v.is_floating_point()])


def test_dblrnet_then_dblrgan_then_test(train_options, gan_options, test_options, tmp_path):
    """The main job, on footage a person could look at."""
    net = without_gan(gan_options)
    net['datasets']['train'] |= {'num_worker_per_gpu': 2, 'random_reverse': True}
    net['train'] = {**net['train'], 'total_iter': 90, 'ema_decay': 0.9}
    train(net, tmp_path)
    start = tmp_path / 'experiments/net/models/net_g_latest.pth'
    gan = {**gan_options, 'path': {'pretrain_network_g': str(start), 'param_key_g': 'params_ema'}}
    gan['train']['optim_g']['lr'] = 1e-4
    train(gan, tmp_path)

    figures = {}
    blurry = {'type': 'BlurryInput'}
    for name, network, path in (
        ('blurry', blurry, None),
        ('net', test_options['network_g'], start),
        ('gan', test_options['network_g'], tmp_path / 'experiments/gan/models/net_g_latest.pth'),
    ):
        options = {**test_options, 'name': name, 'network_g': network}
        options['path'] = {'pretrain_network_g': path and str(path)}
        options['val'] = {**options['val'], 'save_img': True, 'suffix': 'restored'}
        path = write_options(tmp_path / f'test_{name}.yml', options)
        result = dblr('test', '-opt', path, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        figures[name] = json.loads((tmp_path / f'results/{name}/metrics.json').read_text())[0]['mean']
        assert (tmp_path / f'results/{name}/visualization/V/v/00000003_restored.png').exists()
    assert figures['net']['psnr'] > figures['blurry']['psnr'] + 2
    assert figures['gan']['psnr'] > figures['blurry']['psnr'] + 2


@pytest.mark.parametrize('kind', ['net', 'gan'])
def test_two_processes_equal_one_with_the_same_global_batch(gan_options, tmp_path, kind):
    """Augmentation included, BatchNorm frozen: only the way the gradients are summed differs."""
    options = gan_options if kind == 'gan' else without_gan(gan_options)
    options['train'] |= {'freeze_bn': True, 'total_iter': 6}
    # Adam divides by the gradients' size, and a larger eps keeps it from amplifying rounding of tiny ones
    for name in ('optim_g', 'optim_d') if kind == 'gan' else ('optim_g',):
        options['train'][name] |= {'eps': 1e-4}
    runs = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        options['datasets']['train']['batch_size_per_gpu'] = 4 // processes
        train(options, folder, processes=processes)
        runs[processes] = folder
    for net in ('net_g', 'net_d') if kind == 'gan' else ('net_g',):
        one, two = (weights(folder, options['name'], net) for folder in runs.values())
        moved = (one - weights(runs[1], options['name'], net, '5')).norm()  # in one iteration
        assert moved > 0
        assert (one - two).norm() < 1e-2 * moved
    one, two = (json.loads((f / f'experiments/{options["name"]}/metrics.json').read_text()) for f in runs.values())
    for metric, value in one[0]['mean'].items():
        assert two[0]['mean'][metric] == pytest.approx(value, abs=1e-3)


def test_resume_after_an_interrupt(gan_options, tmp_path):
    """Both ways of resuming continue at the saved iteration, past a damaged newer state, with another batch size."""
    gan_options['datasets']['train']['dataset_enlarge_ratio'] = 1
    train(gan_options, tmp_path)
    states = tmp_path / 'experiments/gan/training_states'
    (states / '10.state').write_bytes((states / '10.state').read_bytes()[:100])
    gan_options['train']['total_iter'] = 15
    result = train(gan_options, tmp_path, '--auto_resume')
    assert 'iter: 5.' in result.stderr and 'skipping' in result.stderr
    assert (states / '15.state').exists()
    assert not list((tmp_path / 'experiments').glob('gan_archived*'))

    gan_options['path']['resume_state'] = str(states / '15.state')
    gan_options['train']['total_iter'] = 20
    gan_options['datasets']['train']['batch_size_per_gpu'] = 2
    elsewhere = tmp_path / 'elsewhere'
    shutil.copytree(tmp_path / 'experiments', elsewhere / 'experiments')
    result = train(gan_options, elsewhere)
    assert 'iter: 15.' in result.stderr
    assert torch.load(elsewhere / 'experiments/gan/training_states/20.state')['iter'] == 20


@pytest.mark.parametrize(('kind', 'processes', 'changes'), [
    ('net', 1, {}), ('gan', 2, {}),
    ('gan', 1, {'amp': 'bf16', 'accumulate': 2, 'scheduler': {'type': 'PlateauLR', 'window': 3, 'patience': 1}}),
], ids=['net', 'gan on 2', 'gan with plateaus in bf16'])  # fmt: skip
def test_resumed_run_ends_bit_identical(gan_options, tmp_path, kind, processes, changes):
    """With augmentation, workers, EMA, and a schedule; stopped in the middle of an epoch."""
    options = gan_options if kind == 'gan' else without_gan(gan_options)
    options['datasets']['train'] |= {'dataset_enlarge_ratio': 2, 'use_rot': True}
    if processes == 1:  # a worker of several takes seconds to start; tests/test_link.py has some
        options['datasets']['train'] |= {'num_worker_per_gpu': 1, 'persistent_workers': True}
    options['train'] |= {'ema_decay': 0.9, 'total_iter': 8, 'warmup_iter': 3}
    options['train']['scheduler']['milestones'] = [4, 7]
    options['train'] |= changes
    if 'amp' in changes:  # which most CPUs compute slowly
        options['datasets']['train']['gt_size'] = 16
    options['logger']['save_checkpoint_freq'] = 4 if processes == 1 else 5
    train(options, tmp_path, processes=processes)
    whole = tmp_path / f'experiments/{kind}/models'
    expected = {path.name: torch.load(path) for path in whole.glob('*_latest.pth')}
    for path in [*whole.glob('*_latest.pth'), *whole.glob('*_8.pth')]:
        path.unlink()
    (tmp_path / f'experiments/{kind}/training_states/8.state').unlink(missing_ok=True)
    result = train(options, tmp_path, '--auto_resume', processes=processes)
    assert f'iter: {options["logger"]["save_checkpoint_freq"]}.' in result.stderr
    for name, checkpoint in expected.items():
        again = torch.load(whole / name)
        for about in ('network', 'format_version'):
            assert checkpoint.pop(about, None) == again.pop(about, None)
        for group, weights in checkpoint.items():
            assert all(torch.equal(value, again[group][key]) for key, value in weights.items()), (name, group)
    assert [e['iter'] for e in json.loads((whole.parent / 'metrics.json').read_text())] == [8]  # not twice


def test_everything_at_once_on_two_processes(gan_options, tmp_path):
    """Mixed precision, pieces, clipping and layout, wrapped for distribution."""
    gan_options['train'] |= {
        'amp': 'bf16', 'accumulate': 2, 'clip_grad_norm': 1.0, 'channels_last': True, 'ema_decay': 0.9,
    }  # fmt: skip
    gan_options['datasets']['train']['gt_size'] = 16
    gan_options['val']['val_freq'] = 5
    result = train(gan_options, tmp_path, processes=2)
    log = re.findall(r'p_d_real: (\S+) p_d_fake: (\S+) .*grad_d: (\S+) .*l_g_pix: (\S+) grad_g: (\S+)', result.stderr)
    assert len(log) == 2 and all(0 < float(value) < 10 for line in log for value in line)
    assert [e['iter'] for e in json.loads((tmp_path / 'experiments/gan/metrics.json').read_text())] == [5, 10]
    assert len(list((tmp_path / 'experiments/gan/visualization/strips/V').glob('*_5.png'))) == 2
