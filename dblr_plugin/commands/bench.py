"""Measure how fast data is read, networks are trained and validated, and frames restored and scored, on this machine.

Each kind lets all ways take turns in one run: stock BasicSR's or eager fp32, and ours. It prints medians, from where to
where they spread, how many times as fast each is, and which share of the machine's measured limits it reaches.

dblr bench data measures BasicSR's ways to read and ours on generated frames; dblr bench data ROOT_LQ ROOT_GT measures
them on a sample of your clips. dblr bench inference measures networks on the CPU, on generated frames or, with
--input, on yours: each step from plain PyTorch to the fastest way, what it gains, and what it loses in precision; and a
video from file to file. dblr bench train measures training steps, dblr bench validation whole validations, dblr bench
metrics PSNR and SSIM, BasicSR's and ours.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from dblr_plugin.bench import data, inference, metrics, train, validation
from dblr_plugin.bench.end_to_end import DBLR
from dblr_plugin.bench.machine import describe_commit, describe_machine, describe_versions
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation import write_json
from dblr_plugin.files import check_writable

__all__ = ['add_arguments', 'run']

_PACKAGES = (
    'dblr_plugin', 'basicsr', 'numpy', 'opencv-python', 'lmdb', 'torch', 'torchvision', 'openvino', 'zstandard',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand for each kind of measurement."""
    kinds = parser.add_subparsers(title='kinds', metavar='KIND', dest='kind', required=True)
    data_kind = kinds.add_parser('data', help='reading training and validation samples')
    data_kind.add_argument('roots', nargs='*', type=Path, metavar='ROOT', help='ROOT_LQ ROOT_GT, folders of clips')
    data_kind.set_defaults(measure=_measure_data, method=data.METHOD)
    inference_kind = kinds.add_parser('inference', help='restoring frames: networks, backends and precisions')
    inference_kind.add_argument('--input', type=Path, metavar='FRAMES', help='folder of at least 5 consecutive frames')
    size_help = "of the frames' middle (default: 320x176, a few minutes on two cores)"
    inference_kind.add_argument('--size', type=_size, default=(320, 176), metavar='WIDTHxHEIGHT', help=size_help)
    inference_kind.add_argument('--full', action='store_true', help='1280x720, and everything compiled: takes long')
    inference_kind.set_defaults(measure=_measure_inference, method=inference.METHOD)
    train_kind = kinds.add_parser('train', help="training steps: BasicSR's models and ours")
    train_kind.add_argument('--full', action='store_true', help='also compiled: takes long')
    train_kind.set_defaults(measure=_measure_training, method=train.METHOD)
    validation_kind = kinds.add_parser('validation', help="a clip restored and scored: BasicSR's models and ours")
    validation_kind.add_argument('--full', action='store_true', help='1280x720 instead of 320x176: takes long')
    validation_kind.set_defaults(measure=_measure_validation, method=validation.METHOD)
    metrics_kind = kinds.add_parser('metrics', help="PSNR and SSIM: BasicSR's and ours")
    metrics_kind.set_defaults(measure=_measure_metrics, method=metrics.METHOD)
    longer = {train_kind: 120, validation_kind: 120, metrics_kind: 20}
    for kind in kinds.choices.values():
        seconds = longer.get(kind, 60)
        kind.add_argument('--json', type=Path, metavar='FILE', help='write all figures there')
        text = f'time to measure for (default: {seconds})'
        kind.add_argument('--seconds', type=float, default=seconds, metavar='S', help=text)


def run(args: argparse.Namespace) -> None:
    """Runs the chosen measurement; raises DBLRError when the data or the paths do not allow it."""
    _check(args)
    report = {
        'schema': f'dblr_bench_{args.kind}/1',
        'machine': describe_machine(),
        'versions': describe_versions(_PACKAGES),
        'commit': describe_commit(),
        'method': args.method,
        **args.measure(args),
    }
    if args.json is not None:
        write_json(args.json, report)


def _check(args: argparse.Namespace) -> None:
    """Refuses what would fail only after the measurement."""
    if args.json is not None and not args.json.parent.is_dir():
        raise DBLRError(f'{args.json.parent} is not a folder; create it first')
    if args.json is not None and args.json.is_dir():
        raise DBLRError(f'{args.json} is a folder; name a file')
    if args.json is not None:
        check_writable(args.json)
    if not 0 <= args.seconds < math.inf:
        raise DBLRError(f'--seconds must be a number from 0, got {args.seconds}')


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 1280x720")
    return int(match[1]), int(match[2])


def _measure_data(args: argparse.Namespace) -> dict:
    if len(args.roots) not in (0, 2):
        raise DBLRError('give both folders, ROOT_LQ and ROOT_GT, or none')
    sets = data.measure_own(*args.roots, args.seconds) if args.roots else data.measure_generated(args.seconds)
    for figures in sets:
        size = f'{figures["frames"]} pairs of {_shown(figures["size"])}, {figures["bytes"] / 1e6:.1f} MB'
        print(f'\n{figures["origin"]}: {size}')
        _print_limits(figures['limits'])
        _print_ways(figures['ways'], 'ms a sample', {'share': _share, 'bytes': _bytes})
    return {'sets': sets}


def _measure_inference(args: argparse.Namespace) -> dict:
    size = (1280, 720) if args.full else args.size
    origin, window = inference.own_window(args.input, size) if args.input else inference.generated_window(size)
    figures = inference.measure(window, args.seconds, args.full)
    print(f'\n{origin}: {_shown(figures["size"])}, {_place(figures)}; auto is {figures["auto"]}')
    _print_limits(figures['limits'])
    for name, network in figures['networks'].items():
        print(f'\n{name}, {network["gflop"]:.0f} GFLOP a frame')
        _print_ways(network['ways'], 'ms a frame', {'dB': _decibels, **_SPEED, 'MB': _megabytes})
    video = figures['video']
    print(f'\nH.264 video of {video["frames"]} frames, causal DBLRNet, from file to file')
    _print_ways(video['ways'], 'ms a frame', _SPEED, video['frames'])
    latency = video['ways'][DBLR]['latency_ms']
    print(f'latency: {latency["median"]:.1f} ms median, {latency["percentile_95"]:.1f} ms 95th percentile')
    return {'origin': origin, **figures}


def _measure_training(args: argparse.Namespace) -> dict:
    figures = train.measure(args.seconds, full=args.full)
    batch = 'x'.join(map(str, figures['batch']))
    print(f'\nbatches of {batch}, {_place(figures)}')
    _print_limits(figures['limits'])
    for name, model in figures['models'].items():
        print(f'\n{name}, {model["gflop"]:.0f} GFLOP a step')
        _print_ways(model['ways'], 'ms a step', _SPEED)
    return figures


def _measure_validation(args: argparse.Namespace) -> dict:
    figures = validation.measure(args.seconds, (1280, 720) if args.full else (320, 176))
    clip = f'{figures["frames"]} frames of {_shown(figures["size"])}, {_place(figures)}'
    print(f'\n{figures["origin"]}: {clip}, {figures["gflop"]:.0f} GFLOP')
    _print_limits(figures['limits'])
    differences = {'PSNR': _difference('psnr'), 'SSIM': _difference('ssim')}
    _print_ways(figures['ways'], 'ms a clip', _SPEED | differences)
    return figures


def _measure_metrics(args: argparse.Namespace) -> dict:
    figures = metrics.measure(args.seconds)
    print(f'\n{figures["origin"]}: a frame of {_shown(figures["size"])}')
    _print_ways(figures['ways'], 'ms a frame', {'difference': lambda way: f'{way["difference"]:.0e}'})
    return figures


_Column = Callable[[dict], str]


def _print_ways(ways: dict[str, dict], unit: str, columns: dict[str, _Column], parts: int = 1) -> None:
    """A line for each way: median and extremes over so many parts, how many times as fast, and further columns."""
    print(f'{unit:>12} {"from":>9} {"to":>9} {"times":>7}' + ''.join(f' {title:>10}' for title in columns))
    for way in ways.values():
        median, least, most = (way[key] / parts for key in ('median_ms', 'min_ms', 'max_ms'))
        further = ''.join(f' {show(way):>10}' for show in columns.values())
        print(f'{median:12.2f} {least:9.2f} {most:9.2f} {way["ratio"]:6.2f}x{further}  {way["text"]}')


def _print_limits(limits: dict[str, dict]) -> None:
    print('limits: ' + ', '.join(f'{name} {limit["speed"]:.0f} {limit["unit"]}' for name, limit in limits.items()))


def _place(figures: dict) -> str:
    return f'{figures["device"]}, {figures["threads"]} threads'


def _shown(size: list[int]) -> str:
    height, width = size
    return f'{width}x{height}'


def _share(way: dict) -> str:
    return f'{way["share"]:.0%}'


_SPEED: dict[str, _Column] = {'GFLOPS': lambda way: f'{way["gflops"]:.0f}', 'share': _share}


def _bytes(way: dict) -> str:
    return '-' if way['bytes_ratio'] is None else f'{way["bytes_ratio"]:.2f}x'


def _decibels(way: dict) -> str:
    return 'equal' if way['decibels'] is None else f'{way["decibels"]:.0f}'


def _megabytes(way: dict) -> str:
    return '-' if way['peak_bytes'] is None else f'{way["peak_bytes"] / 1e6:.0f}'


def _difference(metric: str) -> _Column:
    return lambda way: f'{way[f"{metric}_difference"]:+.0e}'
