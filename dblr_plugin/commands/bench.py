"""Measure how fast data is read on this machine.

dblr bench data measures BasicSR's ways to read and ours on generated frames; dblr bench data ROOT_LQ ROOT_GT measures
them on a sample of your clips.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dblr_plugin.benchmark.data import METHOD, measure_generated, measure_own
from dblr_plugin.benchmark.machine import describe_commit, describe_machine, describe_versions
from dblr_plugin.errors import DBLRError

__all__ = ['add_arguments', 'run']

_PACKAGES = ('dblr_plugin', 'basicsr', 'numpy', 'opencv-python', 'lmdb', 'torch', 'zstandard')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand for each kind of measurement."""
    kinds = parser.add_subparsers(title='kinds', metavar='KIND', required=True)
    data = kinds.add_parser('data', help='reading training and validation samples')
    data.add_argument('roots', nargs='*', type=Path, metavar='ROOT', help='ROOT_LQ ROOT_GT, folders of clips')
    data.add_argument('--json', type=Path, metavar='FILE', help='write all figures there')
    data.add_argument('--seconds', type=float, default=60, metavar='S', help='time to measure for (default: 60)')
    data.set_defaults(measure=_measure_data)


def run(args: argparse.Namespace) -> None:
    """Runs the chosen measurement; raises DBLRError when the data or the paths do not allow it."""
    args.measure(args)


def _measure_data(args: argparse.Namespace) -> None:
    if len(args.roots) not in (0, 2):
        raise DBLRError('give both folders, ROOT_LQ and ROOT_GT, or none')
    if args.json is not None and not args.json.parent.is_dir():
        raise DBLRError(f'{args.json.parent} is not a folder; create it first')
    sets = measure_own(*args.roots, args.seconds) if args.roots else measure_generated(args.seconds)
    report = {
        'schema': 'dblr_bench_data/1',
        'machine': describe_machine(),
        'versions': describe_versions(_PACKAGES),
        'commit': describe_commit(),
        'method': METHOD,
        'sets': sets,
    }
    for figures in sets:
        _print_table(figures)
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')


def _print_table(figures: dict) -> None:
    height, width = figures['size']
    print(f'\n{figures["origin"]}: {figures["frames"]} pairs of {width}x{height}, {figures["bytes"] / 1e6:.1f} MB')
    print(f'{"ms a sample":>12} {"from":>8} {"to":>8} {"times":>7} {"bytes":>7}')
    for way in figures['ways'].values():
        size = '-' if way['bytes_ratio'] is None else f'{way["bytes_ratio"]:.2f}x'
        times = f'{way["ratio"]:.1f}x'
        spread = f'{way["min_ms"]:8.2f} {way["max_ms"]:8.2f}'
        print(f'{way["median_ms"]:12.2f} {spread} {times:>7} {size:>7}  {way["text"]}')
