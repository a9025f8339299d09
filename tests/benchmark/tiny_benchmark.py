"""The benchmark that tests share, and what it left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from dblr_plugin.archs import DBLRNet

METRIC = str(Path(__file__).with_name('gradient_metric.py'))
ITERATIONS = 60  # of the training that is interrupted


@dataclass
class Ran:
    """What the benchmark did, and left in ``root/benchmarks/tiny``."""

    root: Path
    codes: list[int]
    outputs: list[str]
    written: dict[str, int]  # file -> time of its last change, before the last run

    @property
    def folder(self) -> Path:
        return self.root / 'benchmarks/tiny'

    @property
    def report(self) -> dict:
        return json.loads((self.folder / 'report.json').read_text())


def tiny_benchmark(footage: Path) -> dict:
    """Blurry input, a checkpoint, DBLRNet, and a DBLRGAN that starts from it and diverges."""
    roots = {
        f'datasets.{part}.dataroot_{side}': str(footage / part / side)
        for part in ('train', 'val')
        for side in ('lq', 'gt')
    }
    small = {'network_g.num_feat': 8, 'network_g.num_block': 1}
    diverging = {'train.optim_g.lr': 1e30, 'train.max_skipped_steps': 1}
    return {
        'name': 'tiny',
        'prepare': 'make the footage',
        'set': {
            **roots,
            'imports': [METRIC],
            'datasets.train.gt_size': 32,
            'datasets.train.batch_size_per_gpu': 2,
            'datasets.train.num_worker_per_gpu': 0,
            'datasets.train.dataset_enlarge_ratio': 100,
            'train.total_iter': 2,
            'train.scheduler': {'type': 'MultiStepLR', 'milestones': [1000]},
            'val.val_freq': 2,
            'val.pbar': False,
            'logger': {'print_freq': 1, 'save_checkpoint_freq': 100, 'use_tb_logger': False},
        },
        'protocols': ['basicsr', 'vrt-matlab'],
        'metrics': ['ssim_3d', 'gradient'],
        'timing': {'size': '64x48', 'seconds': 0},
        'quoted': 'quoted.yml',
        'methods': {
            'Blurry input': {'network_g': {'type': 'BlurryInput'}},
            'Broken': {
                'options': 'train_DBLRGAN.yml',
                'pretrained_from': 'Net',
                'set': {**small, 'network_d.num_feat': 4, 'network_d.num_fc': 8, **diverging},
            },
            'Theirs | with a bar': {'options': 'train_DBLRNet.yml', 'weights': 'theirs.pth', 'set': small},
            'Net': {
                'options': 'train_DBLRNet.yml',
                'set': {**small, 'train.total_iter': ITERATIONS, 'val.val_freq': ITERATIONS // 2},
            },
        },
    }


def write_theirs(path: Path) -> None:
    """A checkpoint of the tiny network."""
    torch.manual_seed(0)
    torch.save({'params': DBLRNet(num_feat=8, num_block=1).state_dict()}, path)
