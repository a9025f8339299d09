"""How long a validation takes: BasicSR's video model and test set, and ours, on the same clip, network and weights.

BasicSR's (``VideoBaseModel`` and ``VideoTestDataset``) runs eager float32, decodes each frame once for each window that
contains it, and alternates restoring and scoring. Ours is called as by BasicSR's trainer and ``dblr test``: preparing
the network, which ``val.backend`` may compile, is part of each validation and so of its time.
"""

from __future__ import annotations

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)

# isort: split

import argparse
import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from basicsr.models.base_model import BaseModel
from common import arguments, build_bench_model, run, without_messages
from data import basicsr_test_set, own_test_set
from frames import generate_sample
from inference import operations
from limits import METHOD as LIMITS
from limits import limit_figures, limit_ways, share_of
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dblr_plugin.archs import MultiScaleDBLRNet
from dblr_plugin.benchmark.record import describe_device
from dblr_plugin.benchmark.timing import Variant, figures, run_rounds
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.backends import choose

METHOD = {
    'network': 'on RGB, with random weights',
    'validation': "a clip's frames read (PNG), restored and scored with PSNR and SSIM (RGB), set-up of the network "
    'included',
    'order': 'all ways in every round, the first round not counted',
    'figure': 'median over rounds, in milliseconds per clip',
    'difference': "of the mean figure from BasicSR's",
    'operations': 'of convolutions and matrix products of the network, two for a multiply-add',
    **LIMITS,
}
_METRICS = {name: {'type': f'calculate_{name}', 'crop_border': 0, 'test_y_channel': False} for name in ('psnr', 'ssim')}
_NETWORKS = {
    'paper': {'type': 'DBLRNet', 'input_skip': True},
    'light': {'type': 'MultiScaleDBLRNet'},
}
_PLAIN = {'backend': 'torch', 'precision': 'fp32'}
# settings of `val` in our option files, for each variant
_OURS: dict[str, dict[str, str]] = {
    'ours': {},
    'ours, backend auto': {'backend': 'auto'},
    'ours, backend and precision auto': {'backend': 'auto', 'precision': 'auto'},
    'ours, int8': {'backend': 'openvino', 'precision': 'int8'},
}


def measure(
    seconds: float,
    size: tuple[int, int] = (320, 176),
    frames: int = 5,
    network: dict[str, Any] | None = None,
) -> dict:
    """Measures validations of a generated clip and returns the report (docs/speed/schema.json).

    Args:
        seconds: Time to measure for.
        size: Width and height of the clip.
        frames: Number of frames, at least 5.
        network: ``type`` and arguments of the network; the paper's by default.
    """
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        sample = generate_sample(Path(folder), '.png', frames, size)
        frames = sample.frames  # the footage may be shorter
        network = {**(network or _NETWORKS['paper']), 'num_in_ch': 3, 'num_out_ch': 3}
        with without_messages():
            build = partial(_model, folder=Path(folder), network=network)
            stock, theirs = build('VideoBaseModel'), basicsr_test_set(sample)
            _disturb(stock.net_g)
            # BasicSR would create it on a GPU, even if there is none
            stock.metric_results = {'000': torch.zeros(frames, len(_METRICS), device=stock.device)}
            models = {name: build('VideoDeblurModel', val=val) for name, val in _possible(stock.device).items()}
        device, own = stock.device, own_test_set((sample.lq, sample.gt))
        ways = {
            'basicsr': Variant(
                "BasicSR's VideoBaseModel, eager fp32", _without_bar(_validation(stock, theirs)), 'basicsr'
            )
        }
        for name, model in models.items():
            model.net_g.load_state_dict(stock.net_g.state_dict())
            ways[name] = Variant(name, _validation(model, own), 'basicsr')
        limiting = limit_ways(device)
        run_rounds([*ways.values(), *limiting.values()], seconds)
    window = torch.rand(1, 5, 3, *size[::-1], device=device)
    gflop, limits, found = frames * operations(stock.net_g, window) / 1e9, limit_figures(limiting), figures(ways)
    for name, way in found.items():
        settings = _PLAIN | _OURS.get(name, {})
        backend, precision = choose(device, **settings, frames=frames)
        way |= {'backend': backend, 'precision': precision}
        way |= share_of(gflop, way['median_ms'], limits, precision)
        way |= ways[name].result
        way |= {f'{metric}_difference': way[metric] - ways['basicsr'].result[metric] for metric in _METRICS}
    return {
        'network': network,
        'origin': sample.origin,
        'frames': frames,
        'size': list(sample.size),
        'device': describe_device(device),
        'threads': torch.get_num_threads(),
        'gflop': gflop,
        'limits': limits,
        'ways': found,
    }


def _possible(device: torch.device) -> dict[str, dict[str, str]]:
    """Returns the variants that this device and installation support."""
    found = {}
    for name, val in _OURS.items():
        with contextlib.suppress(DBLRError):
            choose(device, **(_PLAIN | val))
            found[name] = val
    return found


def _model(kind: str, folder: Path, network: dict[str, Any], val: dict[str, str] | None = None) -> BaseModel:
    val = {'save_img': False, 'suffix': None, 'pbar': False, 'metrics': _METRICS, **(val or {})}
    return build_bench_model(kind, folder, network_g=network, val=val)


def _disturb(net: nn.Module) -> None:
    """Makes every weight affect the output: an untrained network returns its input."""
    torch.manual_seed(0)
    last = net.last if isinstance(net, MultiScaleDBLRNet) else net.reconstruction[-1]
    nn.init.normal_(last.weight, std=0.02)


def _validation(model: BaseModel, dataset: Dataset) -> Callable[[], dict[str, float]]:
    """Returns a function that validates and returns the data set's mean PSNR and SSIM."""
    loader = DataLoader(dataset)

    def validate() -> dict[str, float]:
        with without_messages():
            model.dist_validation(loader, 0, None, False)
        found = model.best_metric_results[dataset.opt['name']]
        return {metric: float(found[metric]['val']) for metric in _METRICS}

    return validate


def _without_bar(run: Callable[[], Any]) -> Callable[[], Any]:
    """Hides BasicSR's progress bar, which cannot be disabled."""

    def quiet() -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            return run()

    return quiet


def _report(args: argparse.Namespace) -> dict:
    size = (1280, 720) if args.full else (320, 176)
    return measure(args.seconds, size, args.frames, _NETWORKS[args.network])


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the given arguments, by default those of the command line."""
    parser = arguments(__doc__, seconds=120)
    parser.add_argument('--full', action='store_true', help='1280x720 instead of 320x176: takes long')
    text = "DBLRNet of the paper's width, or MultiScaleDBLRNet as the light weights (default: %(default)s)"
    parser.add_argument('--network', choices=_NETWORKS, default='paper', help=text)
    text = 'of the clip; calibrating int8 takes as long for few as for many (default: %(default)s)'
    parser.add_argument('--frames', type=int, default=5, help=text)
    run('validation', parser.parse_args(argv), METHOD, _report)


if __name__ == '__main__':
    main()
