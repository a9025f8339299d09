"""Measure how fast data is read, networks are trained, and frames are restored and scored, on this machine.

dblr bench data measures BasicSR's ways to read and ours on generated frames; dblr bench data ROOT_LQ ROOT_GT measures
them on a sample of your clips. dblr bench inference measures networks on the CPU, on generated frames or, with
--input, on yours: each step from plain PyTorch to the fastest way, what it gains, and what it loses in precision; and a
video from file to file. dblr bench train measures training steps, dblr bench metrics PSNR and SSIM, BasicSR's and ours.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

from dblr_plugin.bench.data import METHOD, measure_generated, measure_own
from dblr_plugin.bench.inference import METHOD as INFERENCE_METHOD
from dblr_plugin.bench.inference import generated_window, measure, own_window
from dblr_plugin.bench.machine import describe_commit, describe_machine, describe_versions
from dblr_plugin.bench.metrics import METHOD as METRICS_METHOD
from dblr_plugin.bench.metrics import measure as measure_metrics
from dblr_plugin.bench.train import METHOD as TRAIN_METHOD
from dblr_plugin.bench.train import measure as measure_training
from dblr_plugin.errors import DBLRError

__all__ = ['add_arguments', 'run']

_PACKAGES = (
    'dblr_plugin', 'basicsr', 'numpy', 'opencv-python', 'lmdb', 'torch', 'torchvision', 'openvino', 'zstandard',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand for each kind of measurement."""
    kinds = parser.add_subparsers(title='kinds', metavar='KIND', required=True)
    data = kinds.add_parser('data', help='reading training and validation samples')
    data.add_argument('roots', nargs='*', type=Path, metavar='ROOT', help='ROOT_LQ ROOT_GT, folders of clips')
    data.add_argument('--json', type=Path, metavar='FILE', help='write all figures there')
    data.add_argument('--seconds', type=float, default=60, metavar='S', help='time to measure for (default: 60)')
    data.set_defaults(measure=_measure_data)
    inference = kinds.add_parser('inference', help='restoring frames: networks, backends and precisions')
    inference.add_argument('--input', type=Path, metavar='FRAMES', help='folder of at least five consecutive frames')
    inference.add_argument('--json', type=Path, metavar='FILE', help='write all figures there')
    inference.add_argument('--seconds', type=float, default=60, metavar='S', help='time to measure for (default: 60)')
    size_help = "of the frames' middle (default: 320x176, a few minutes on two cores)"
    inference.add_argument('--size', type=_size, default=(320, 176), metavar='WIDTHxHEIGHT', help=size_help)
    inference.add_argument('--full', action='store_true', help='1280x720, and everything compiled: takes long')
    inference.set_defaults(measure=_measure_inference)
    train = kinds.add_parser('train', help="training steps: BasicSR's models and ours")
    train.add_argument('--full', action='store_true', help='also compiled: takes long')
    train.set_defaults(measure=_measure_training)
    metrics = kinds.add_parser('metrics', help="PSNR and SSIM: BasicSR's and ours")
    metrics.set_defaults(measure=_measure_metrics)
    for kind, seconds in ((train, 120), (metrics, 20)):
        kind.add_argument('--json', type=Path, metavar='FILE', help='write all figures there')
        text = f'time to measure for (default: {seconds})'
        kind.add_argument('--seconds', type=float, default=seconds, metavar='S', help=text)


def run(args: argparse.Namespace) -> None:
    """Runs the chosen measurement; raises DBLRError when the data or the paths do not allow it."""
    args.measure(args)


def _measure_data(args: argparse.Namespace) -> None:
    if len(args.roots) not in (0, 2):
        raise DBLRError('give both folders, ROOT_LQ and ROOT_GT, or none')
    _check(args)
    sets = measure_own(*args.roots, args.seconds) if args.roots else measure_generated(args.seconds)
    for figures in sets:
        _print_table(figures)
    _write(_report('data', METHOD, {'sets': sets}), args.json)


def _measure_inference(args: argparse.Namespace) -> None:
    _check(args)
    size = (1280, 720) if args.full else args.size
    origin, window = own_window(args.input, size) if args.input else generated_window(size)
    figures = measure(window, args.seconds, args.full)
    _print_ladder(origin, figures)
    _write(_report('inference', INFERENCE_METHOD, {'origin': origin, **figures}), args.json)


def _measure_training(args: argparse.Namespace) -> None:
    _check(args)
    figures = measure_training(args.seconds, full=args.full)
    batch = 'x'.join(map(str, figures['batch']))
    for name, model in figures['models'].items():
        print(f'\n{name}: batches of {batch}, {model["gflop"]:.0f} GFLOP a step, {figures["threads"]} threads')
        _print_ways(model['ways'], {'GFLOPS': lambda way: f'{way["gflops"]:.0f}'})
    _write(_report('train', TRAIN_METHOD, figures), args.json)


def _measure_metrics(args: argparse.Namespace) -> None:
    _check(args)
    figures = measure_metrics(args.seconds)
    height, width = figures['size']
    print(f'\n{figures["origin"]}: a frame of {width}x{height}')
    _print_ways(figures['ways'], {'difference': lambda way: f'{way["difference"]:.0e}'})
    _write(_report('metrics', METRICS_METHOD, figures), args.json)


def _report(kind: str, method: dict, figures: dict) -> dict:
    return {
        'schema': f'dblr_bench_{kind}/1',
        'machine': describe_machine(),
        'versions': describe_versions(_PACKAGES),
        'commit': describe_commit(),
        'method': method,
        **figures,
    }


def _print_ways(ways: dict[str, dict], further: dict[str, Callable[[dict], str]]) -> None:
    print(f'{"ms":>9} {"from":>9} {"to":>9} {"times":>7}' + ''.join(f' {title:>10}' for title in further))
    for way in ways.values():
        spread = ' '.join(f'{way[key]:9.2f}' for key in ('median_ms', 'min_ms', 'max_ms'))
        times = f'{way["ratio"]:.2f}x'
        print(f'{spread} {times:>7}' + ''.join(f' {show(way):>10}' for show in further.values()) + f'  {way["text"]}')


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 1280x720")
    return int(match[1]), int(match[2])


def _check(args: argparse.Namespace) -> None:
    """Refuses what would fail only after the measurement."""
    if args.json is not None and not args.json.parent.is_dir():
        raise DBLRError(f'{args.json.parent} is not a folder; create it first')
    if args.json is not None and args.json.is_dir():
        raise DBLRError(f'{args.json} is a folder; name a file')
    if not 0 <= args.seconds < math.inf:
        raise DBLRError(f'--seconds must be a number from 0, got {args.seconds}')


def _write(report: dict, path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')


def _print_ladder(origin: str, figures: dict) -> None:
    height, width = figures['size']
    speeds = ', '.join(f'{precision} {speed:.0f}' for precision, speed in figures['matrix_gflops'].items())
    print(f'\n{origin}: {width}x{height}, {figures["threads"]} threads; auto is {figures["auto"]}')
    print(f'matrix products, GFLOPS: {speeds}')
    for name, network in figures['networks'].items():
        print(f'\n{name}, {network["gflop"]:.0f} GFLOP a frame')
        print(f'{"ms a frame":>11} {"from":>8} {"to":>8} {"times":>7} {"dB":>6} {"GFLOPS":>7} {"share":>6} {"MB":>6}')
        for step, way in network['steps'].items():
            times = f'{way["ratio"]:.2f}x'
            decibels = 'equal' if way['decibels'] is None else f'{way["decibels"]:.0f}'
            memory = '-' if way['peak_bytes'] is None else f'{way["peak_bytes"] / 1e6:.0f}'
            spread = f'{way["min_ms"]:8.1f} {way["max_ms"]:8.1f}'
            speed = f'{way["gflops"]:7.0f} {way["share"]:6.0%}'
            print(f'{way["median_ms"]:11.1f} {spread} {times:>7} {decibels:>6} {speed} {memory:>6}  {step}')
    _print_video(figures['video'])


def _print_video(video: dict) -> None:
    print(f'\nH.264 video of {video["frames"]} frames, causal DBLRNet, from file to file')
    print(f'{"ms a frame":>11} {"from":>8} {"to":>8} {"times":>7} {"GFLOPS":>7} {"share":>6}')
    for name, way in video['ways'].items():
        median, least, most = (way[key] / video['frames'] for key in ('median_ms', 'min_ms', 'max_ms'))
        times = f'{way["ratio"]:.2f}x'
        print(f'{median:11.1f} {least:8.1f} {most:8.1f} {times:>7} {way["gflops"]:7.0f} {way["share"]:6.0%}  {name}')
    latency = video['ways']['dblr deblur']['latency_ms']
    print(f'latency: {latency["median"]:.1f} ms median, {latency["percentile_95"]:.1f} ms 95th percentile')


def _print_table(figures: dict) -> None:
    height, width = figures['size']
    print(f'\n{figures["origin"]}: {figures["frames"]} pairs of {width}x{height}, {figures["bytes"] / 1e6:.1f} MB')
    print(f'{"ms a sample":>12} {"from":>8} {"to":>8} {"times":>7} {"bytes":>7}')
    for way in figures['ways'].values():
        size = '-' if way['bytes_ratio'] is None else f'{way["bytes_ratio"]:.2f}x'
        times = f'{way["ratio"]:.1f}x'
        spread = f'{way["min_ms"]:8.2f} {way["max_ms"]:8.2f}'
        print(f'{way["median_ms"]:12.2f} {spread} {times:>7} {size:>7}  {way["text"]}')
