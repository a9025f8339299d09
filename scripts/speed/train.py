"""How long a training step takes: BasicSR's models in plain float32 and ours, on the same networks, in one run.

The plain networks are those of the paper with ``nn.Conv3d``; steps are whole calls of ``optimize_parameters``. All
models and the machine's limits are measured in every round.
"""

from __future__ import annotations

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)

# isort: split

import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from common import arguments, build_bench_model, run, without_messages
from limits import METHOD as LIMITS
from limits import best_device, limit_figures, limit_ways, share_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dblr_plugin.archs.dblrnet_arch import TimeStackedConv
from dblr_plugin.benchmark.record import describe_device
from dblr_plugin.benchmark.timing import Variant, figures, run_rounds, waited_for

WINDOW = 5
METHOD = {
    'networks': "the paper's: DBLRNet, and for DBLRGAN its discriminator",
    'step': 'optimize_parameters on the same batch: forward and backward passes, losses, clipping, optimiser, log',
    'order': 'all ways in every round, the first round not counted',
    'figure': 'median over rounds, in milliseconds per step',
    'operations': 'of convolutions and matrix products of the networks in a plain step, two for a multiply-add',
    **LIMITS,
}

_MODELS = (('DBLRNet', 'SRModel', 'VideoDeblurModel'), ('DBLRGAN', 'SRGANModel', 'DBLRGANModel'))
# settings of `train` in our option files, for each variant
_OURS: dict[str, dict[str, Any]] = {
    'fp32': {},
    'bf16': {'amp': 'bf16'},
    'bf16, channels_last': {'amp': 'bf16', 'channels_last': True},
}
_COMPILED = {'bf16, channels_last, compile': {'amp': 'bf16', 'channels_last': True, 'compile': True}}
# DBLRGANModel does not offer them
_GRAPHS = {'bf16, channels_last, CUDA graphs': {'amp': 'bf16', 'channels_last': True, 'compile': 'reduce-overhead'}}


def measure(seconds: float, batch: int = 4, crop: int = 128, num_feat: int = 64, full: bool = False) -> dict:
    """Measures steps of DBLRNet and of DBLRGAN and returns the report (docs/speed/schema.json).

    Args:
        seconds: Time to measure for.
        batch: Windows per batch.
        crop: Height and width of windows.
        num_feat: Width of both networks.
        full: Also measures compiled variants, which take minutes at first.
    """
    torch.manual_seed(0)
    device = best_device()
    # Y windows for all: BasicSR's models do not handle colour
    data = {'lq': torch.rand(batch, WINDOW, 1, crop, crop), 'gt': torch.rand(batch, 1, crop, crop)}
    limiting, models = limit_ways(device), {}
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        with without_messages():
            for name, stock, own in _MODELS:
                build = functools.partial(_model, folder=Path(folder), num_feat=num_feat)
                ways = {'basicsr': (f"BasicSR's {stock}, fp32", _plain(build(stock)))}
                graphs = _GRAPHS if device.type == 'cuda' and name == 'DBLRNet' else {}
                for text, train in (_OURS | (_COMPILED | graphs if full else {})).items():
                    ways[text] = f'{own}, {text}', build(own, train=train)
                models[name] = {
                    way: Variant(text, waited_for(_step(model, data), device), 'basicsr')
                    for way, (text, model) in ways.items()
                }
        gflop = {name: _operations(ways['basicsr']) / 1e9 for name, ways in models.items()}
        run_rounds([way for ways in (*models.values(), limiting) for way in ways.values()], seconds)
    limits = limit_figures(limiting)
    measured = {name: {'gflop': gflop[name], 'ways': figures(ways)} for name, ways in models.items()}
    for model in measured.values():
        for name, way in model['ways'].items():
            way |= share_of(model['gflop'], way['median_ms'], limits, _precision(name))
    return {
        'device': describe_device(device),
        'threads': torch.get_num_threads(),
        'batch': [batch, WINDOW, crop, crop],
        'limits': limits,
        'models': measured,
    }


def _precision(way: str) -> str:
    return 'bf16' if way.startswith('bf16') else 'fp32'


def _operations(way: Variant) -> int:
    with FlopCounterMode(display=False) as counter:
        way.run()
    return counter.get_total_flops()


def _step(model: BaseModel, data: dict[str, Tensor]) -> Callable[[], None]:
    model.feed_data(data)
    iterations = itertools.count(1)
    return lambda: model.optimize_parameters(next(iterations))


def _plain(model: BaseModel) -> BaseModel:
    for module in model.net_g.modules():
        if isinstance(module, TimeStackedConv):
            module.forward = functools.partial(nn.Conv3d.forward, module)
    return model


def _model(kind: str, folder: Path, num_feat: int, train: dict[str, Any] | None = None) -> BaseModel:
    optimizer = {'type': 'Adam', 'lr': 1e-4}
    return build_bench_model(
        kind,
        folder,
        datasets={'train': {'name': 'noise'}},
        network_g={'type': 'DBLRNet', 'num_feat': num_feat},
        network_d={'type': 'DBLRDiscriminator', 'num_feat': num_feat},
        train={
            'optim_g': dict(optimizer), 'optim_d': dict(optimizer), 'total_iter': 1_000_000,
            'scheduler': {'type': 'MultiStepLR', 'milestones': [500_000]},
            'pixel_opt': {'type': 'MSELoss'}, 'gan_opt': {'type': 'MinimaxGANLoss', 'loss_weight': 2e-4},
            **(train or {}),
        },
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the given arguments, by default those of the command line."""
    parser = arguments(__doc__, seconds=120)
    parser.add_argument('--batch', type=int, default=4, help='windows in a batch; 4 as published')
    parser.add_argument('--full', action='store_true', help='also compiled: takes long')
    run('train', parser.parse_args(argv), METHOD, lambda args: measure(args.seconds, args.batch, full=args.full))


if __name__ == '__main__':
    main()
