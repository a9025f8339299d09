"""How long a training step takes: BasicSR's models in plain float32 and ours, on the same networks, in one run.

The plain networks are those of the paper with ``nn.Conv3d``; steps are whole calls of ``optimize_parameters``.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dblr_plugin.archs.dblrnet_arch import TimeStackedConv
from dblr_plugin.bench.rounds import Way, figures, run_rounds

__all__ = ['METHOD', 'measure']

WINDOW = 5
METHOD = {
    'networks': "the paper's: DBLRNet, and for DBLRGAN its discriminator",
    'step': 'optimize_parameters on the same batch: forward and backward passes, losses, clipping, optimiser, log',
    'order': 'all ways in every round, the first round not counted',
    'figure': 'median over rounds of the milliseconds for a step',
    'operations': 'of convolutions and matrix products of the networks in a plain step, two for a multiply-add',
}

# what `train` of our option files is given, for each way
_OURS: dict[str, dict[str, Any]] = {
    'fp32': {},
    'bf16': {'amp': 'bf16'},
    'bf16, channels_last': {'amp': 'bf16', 'channels_last': True},
}
_COMPILED = {'bf16, channels_last, compile': {'amp': 'bf16', 'channels_last': True, 'compile': True}}


def measure(seconds: float, batch: int = 4, crop: int = 128, num_feat: int = 64, full: bool = False) -> dict:
    """Measures steps of DBLRNet and of DBLRGAN.

    Args:
        seconds: Time to measure for; at least three rounds are made, whatever they take.
        batch: Windows in a batch.
        crop: Their height and width.
        num_feat: Width of both networks.
        full: Also compiles, which takes minutes at first.

    Returns:
        ``device``, ``threads``, ``batch`` (b, t, h, w) and ``models``, which maps a name to ``gflop`` (of a step) and
        ``ways``: those of :func:`dblr_plugin.bench.rounds.figures`, with ``gflops``.
    """
    torch.manual_seed(0)
    data = {'lq': torch.rand(batch, WINDOW, 1, crop, crop), 'gt': torch.rand(batch, 1, crop, crop)}
    models = {}
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        for name, stock, own in (('DBLRNet', 'SRModel', 'VideoDeblurModel'), ('DBLRGAN', 'SRGANModel', 'DBLRGANModel')):
            plain = _plain(_model(stock, folder, num_feat, {}))
            # windows of Y for both: theirs has no colour
            ways = {'basicsr': Way(f"BasicSR's {stock}, fp32", 'basicsr', _step(plain, data))}
            for text, train in (_OURS | (_COMPILED if full else {})).items():
                ways[text] = Way(f'{own}, {text}', 'basicsr', _step(_model(own, folder, num_feat, train), data))
            with FlopCounterMode(display=False) as counter:
                ways['basicsr'].run()
            run_rounds(ways, seconds / 2)
            measured, operations = figures(ways), counter.get_total_flops() / 1e9
            for way in measured.values():
                way['gflops'] = 1000 * operations / way['median_ms']
            models[name] = {'gflop': operations, 'ways': measured}
    return {
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        'threads': torch.get_num_threads(),
        'batch': [batch, WINDOW, crop, crop],
        'models': models,
    }


def _step(model: BaseModel, data: dict[str, Tensor]) -> Callable[[], None]:
    model.feed_data(data)
    iterations = itertools.count(1)
    return lambda: model.optimize_parameters(next(iterations))


def _plain(model: BaseModel) -> BaseModel:
    for module in model.net_g.modules():
        if isinstance(module, TimeStackedConv):
            module.forward = functools.partial(nn.Conv3d.forward, module)
    return model


def _model(kind: str, folder: str, num_feat: int, train: dict[str, Any]) -> BaseModel:
    """A model as BasicSR's trainer builds it."""
    optimizer = {'type': 'Adam', 'lr': 1e-4}
    paths = {key: str(Path(folder, key)) for key in ('models', 'training_states', 'visualization', 'log')}
    for path in paths.values():
        Path(path).mkdir(exist_ok=True)
    return build_model({
        'name': kind, 'model_type': kind, 'scale': 1, 'manual_seed': 0, 'is_train': True,
        'num_gpu': min(torch.cuda.device_count(), 1), 'dist': False, 'rank': 0, 'world_size': 1,
        'datasets': {'train': {'name': 'noise'}},
        'network_g': {'type': 'DBLRNet', 'num_feat': num_feat},
        'network_d': {'type': 'DBLRDiscriminator', 'num_feat': num_feat},
        'path': paths,
        'train': {
            'optim_g': dict(optimizer), 'optim_d': dict(optimizer), 'total_iter': 1_000_000,
            'scheduler': {'type': 'MultiStepLR', 'milestones': [500_000]},
            'pixel_opt': {'type': 'MSELoss'}, 'gan_opt': {'type': 'MinimaxGANLoss', 'loss_weight': 2e-4},
            **train,
        },
        'logger': {},
    })  # fmt: skip
