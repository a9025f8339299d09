"""The configs equal the option files of the same names, and the example of docs/mmengine.md runs."""

import fcntl
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from processes import Run, dblr
from runs import CONFIGS, TRAIN

from dblr_plugin.mmengine.registry import plain
from dblr_plugin.weights.checkpoint import read_checkpoint
from dblr_plugin.yaml_file import read_option_file

DOCS = CONFIGS.parents[1] / 'docs'

_RENAMED = {'batch_size_per_gpu': 'batch_size', 'num_worker_per_gpu': 'num_workers',
            'persistent_workers': 'persistent_workers'}  # fmt: skip


def given(section: dict) -> dict:
    """Returns the entries that are not None; an empty init_std is the default."""
    return {key: value for key, value in section.items() if value is not None}


@pytest.mark.parametrize('name', ['train_DBLRNet', 'train_DBLRGAN', 'demo_DBLRNet', 'demo_DBLRGAN'])
def test_config_equals_the_option_file(name):
    options = read_option_file(CONFIGS.parent / f'{name}.yml').plain()
    config = plain(Config.fromfile(CONFIGS / f'{name}.py').to_dict())
    model, train, sets = config['model'], options['train'], options['datasets']
    is_gan = 'network_d' in options
    assert model['type'] == options['model_type']
    defaults = {'groups': 1}  # the demo's option files leave it out
    assert given(model['generator']) == defaults | given(options['network_g'])
    assert model['pixel_loss'] == train['pixel_opt']
    wrappers = config['optim_wrapper']
    assert (wrappers['generator'] if is_gan else wrappers)['optimizer'] == train['optim_g']
    if is_gan:
        assert given(model['discriminator']) == given(options['network_d'])
        assert model['gan_loss'] == train['gan_opt']
        assert wrappers['discriminator']['optimizer'] == train['optim_d']
        assert (model['disc_steps'], model['disc_init_steps']) == (train['net_d_iters'], train['net_d_init_iters'])

    loader = config['train_dataloader']
    assert {loader_key: loader[loader_key] for loader_key in _RENAMED.values()} == {
        loader_key: sets['train'][key] for key, loader_key in _RENAMED.items()
    }
    assert loader['dataset'] == {key: value for key, value in sets['train'].items() if key not in _RENAMED}
    assert config['val_dataloader']['dataset'] == config['test_dataloader']['dataset'] == sets['val']
    assert config['train_cfg']['max_iters'] == train['total_iter']
    assert config['train_cfg']['val_interval'] == options['val']['val_freq']
    hooks, logger = config['default_hooks'], options['logger']
    assert hooks['checkpoint']['interval'] == logger['save_checkpoint_freq']
    assert hooks['logger']['interval'] == logger['print_freq']
    assert config['randomness']['seed'] == options['manual_seed']
    assert_same_schedule(config['param_scheduler'], train)


def assert_same_schedule(schedulers: dict | list, train: dict) -> None:
    theirs = train['scheduler']
    *warm_up, main = schedulers if isinstance(schedulers, list) else [schedulers]
    if theirs['type'] == 'MultiStepLR':
        assert main == {**theirs, 'by_epoch': False}
    else:
        assert (main['type'], main['T_max'], main['eta_min']) == (
            'CosineAnnealingLR', theirs['periods'][0], theirs['eta_min']
        )  # fmt: skip
    assert bool(warm_up) == (train['warmup_iter'] > 0)
    for scheduler in warm_up:
        assert scheduler['start_factor'] == 1 / train['warmup_iter']
        assert scheduler['end'] - scheduler['begin'] == train['warmup_iter']


def block_with(page: str, text: str) -> str:
    """The block of code on a page that has a text."""
    blocks = re.findall(r'^```\w+\n(.*?)^```', (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if text in block)
    return found


@pytest.mark.slow
def test_example_of_the_docs_trains_and_deblurs(footage: Path, tmp_path: Path) -> None:
    (tmp_path / 'options').symlink_to(CONFIGS.parent)
    (tmp_path / 'datasets').mkdir()
    (tmp_path / 'datasets/demo').symlink_to(footage)
    (tmp_path / 'sharpener.py').write_text(block_with('your_own_method.md', 'class Sharpener'))
    (tmp_path / 'mine.py').write_text(block_with('mmengine.md', 'AmpOptimWrapper'))
    (tmp_path / 'mine.yml').write_text(block_with('mmengine.md', 'imports: [sharpener.py]'))
    shorter = ('train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2', 'train_dataloader.dataset.gt_size=32')
    (tmp_path / 'work_dirs/mine').mkdir(parents=True)
    with open(tmp_path / 'work_dirs/mine/.lock', 'w') as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        refused = Run('mine.py', '--cfg-options', *shorter, cwd=tmp_path, program=TRAIN)
        assert refused.wait() == 1
    assert 'work_dirs/mine is being written by another run; wait for it, or give another --work-dir' in refused.stderr
    trained = Run('mine.py', '--cfg-options', *shorter, cwd=tmp_path, program=TRAIN)
    assert trained.wait() == 0, trained.stdout + trained.stderr
    content = read_checkpoint(tmp_path / 'work_dirs/mine/iter_2.pth')
    assert content['network'] == {'type': 'Sharpener', 'num_in_ch': 3}
    assert content['params'].keys() == content['params_ema'].keys()
    assert (tmp_path / 'work_dirs/mine/best_basicsr_psnr_iter_2.pth').is_file()
    weights = ('--weights', 'work_dirs/mine/iter_2.pth', '-opt', 'mine.yml')
    done = dblr('deblur', '-i', footage / 'val/lq/v', '-o', 'restored', *weights, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'restored').iterdir())) == 6
