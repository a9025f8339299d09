"""Converts the trainings of ``tests/conftest.py`` to MMEngine configs, and runs them with both trainers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from processes import Run, dblr, start_ranks, write_options
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIGS = Path(__file__).parents[2] / 'options/mmengine'
TRAIN, TEST = 'dblr_plugin.mmengine.train', 'dblr_plugin.mmengine.test'

_OF_LOADER = ('num_worker_per_gpu', 'batch_size_per_gpu', 'dataset_enlarge_ratio')


def _losses(train: dict) -> dict:
    return {name: train[key] for name, key in (('pixel_loss', 'pixel_opt'), ('gan_loss', 'gan_opt')) if key in train}


def _wrapper(optimizer: dict) -> dict:
    return {'type': 'OptimWrapper', 'optimizer': optimizer}


def as_config(options: dict) -> Config:
    """Returns the Runner's config of the same training."""
    train, train_set = options['train'], options['datasets']['train']
    model = {'type': options['model_type'], 'generator': options['network_g'], **_losses(train)}
    if 'network_d' in options:
        model['discriminator'] = options['network_d']
        wrappers = {'generator': _wrapper(train['optim_g']), 'discriminator': _wrapper(train['optim_d'])}
        wrapper = {'constructor': 'MultiOptimWrapperConstructor', **wrappers}
    else:
        wrapper = _wrapper(train['optim_g'])
    test_loader = {
        'batch_size': 1, 'num_workers': 0, 'dataset': options['datasets']['val'],
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
    }  # fmt: skip
    evaluator = [{'type': 'ProtocolScores', 'protocol': 'basicsr'}]
    config = Config.fromfile(CONFIGS / '_base_/runtime.py')
    distributed = 'MMSeparateDistributedDataParallel' if 'network_d' in options else 'MMDistributedDataParallel'
    config.merge_from_dict(
        {
            'model': model,
            'optim_wrapper': wrapper,
            'param_scheduler': {**train['scheduler'], 'by_epoch': False},
            'train_cfg': {
                'type': 'ResumableTrainLoop', 'max_iters': train['total_iter'],
                'val_interval': options['val']['val_freq'],
            },
            'train_dataloader': {
                'batch_size': train_set['batch_size_per_gpu'], 'num_workers': train_set['num_worker_per_gpu'],
                'sampler': {'type': 'ResumableSampler', 'ratio': train_set['dataset_enlarge_ratio']},
                'dataset': {key: value for key, value in train_set.items() if key not in _OF_LOADER},
            },
            'val_dataloader': test_loader, 'val_evaluator': evaluator, 'val_cfg': {'type': 'ValLoop'},
            'test_dataloader': test_loader, 'test_evaluator': evaluator, 'test_cfg': {'type': 'TestLoop'},
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.interval': options['logger']['save_checkpoint_freq'],
            'model_wrapper_cfg.type': distributed,
            'randomness.seed': options['manual_seed'],
        }
    )  # fmt: skip
    return config


def run(config: Config, folder: Path, *arguments: object, program: str = TRAIN, processes: int = 1) -> str:
    """Runs one of our programs on a config, in ``folder/work_dirs/net``; returns the printed text."""
    folder.mkdir(exist_ok=True)
    config.dump(folder / 'net.py')
    runs = (
        [Run('net.py', *arguments, cwd=folder, program=program)]
        if processes == 1
        else start_ranks([folder] * processes, 'net.py', *arguments, program=program)
    )
    codes = [run.wait() for run in runs]
    assert codes == [0] * processes, runs[0].stderr
    return runs[0].stdout + runs[0].stderr


def scalars(folder: Path) -> list[dict[str, Any]]:
    """Returns the entries that the Runner logged, of all runs in the folder in order."""
    files = sorted((folder / 'work_dirs/net').glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


class BasicSRRun:
    """A complete training by BasicSR's trainer: its losses by iteration, scores and checkpoints."""

    def __init__(self, options: dict, folder: Path, processes: int = 1) -> None:
        folder.mkdir(exist_ok=True)
        self.root = folder
        self.name = options['name']
        path = write_options(folder / 'options.yml', options)
        done: subprocess.CompletedProcess = dblr('train', '-opt', path, cwd=folder, processes=processes)
        assert done.returncode == 0, done.stderr

    def checkpoint(self, network: str, iteration: int) -> Path:
        return self.root / f'experiments/{self.name}/models/{network}_{iteration}.pth'

    def weights(self, network: str, iteration: int) -> dict[str, torch.Tensor]:
        return torch.load(self.checkpoint(network, iteration), weights_only=True)['params']

    def figures(self) -> list[dict]:
        return json.loads((self.root / f'experiments/{self.name}/metrics.json').read_text())

    def losses(self) -> dict[str, list[float]]:
        log = EventAccumulator(str(self.root / f'tb_logger/{self.name}'))
        log.Reload()
        tags = [tag for tag in log.Tags()['scalars'] if tag.startswith('losses/')]
        return {tag.removeprefix('losses/'): [event.value for event in log.Scalars(tag)] for tag in tags}


def five_iterations(options: dict) -> dict:
    """Changes options to five iterations that are all logged, with validation at the end."""
    options['train']['total_iter'] = 5
    options['val'] |= {'val_freq': 5}
    options['logger'] |= {'print_freq': 1, 'save_checkpoint_freq': 2}
    options['datasets']['train']['dataset_enlarge_ratio'] = 1
    return options
