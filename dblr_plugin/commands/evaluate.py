"""Score restored frames against the ground truth under a named protocol.

dblr evaluate RESULTS GT [--protocol all] [--ssim all] [--json figures.json]
compares two folders of clips, two LMDB databases or two folders of one clip each, frame by frame, paired by name.
The names that tests give, such as 00000000_DBLRNet.png, are paired with 00000000.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation import PROTOCOLS, choose_protocols, with_all_ssims
from dblr_plugin.files import check_writable
from dblr_plugin.version import __version__

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RESULTS, GT, --protocol, --ssim and --json; the help tells what each protocol means."""
    parser.add_argument('results', metavar='RESULTS', help='restored frames: RESULTS/<clip>/<frame>.png')
    parser.add_argument('truth', metavar='GT', help='sharp frames, in the same layout')
    parser.add_argument(
        '--protocol', action='append', metavar='NAME', help='a name below, or all; may be repeated (default: basicsr)'
    )
    parser.add_argument(
        '--ssim',
        choices=('protocol', 'all'),
        default='protocol',
        help="the protocol's own SSIM, or beside it ssim_2d (mean of channels), ssim_3d (MATLAB's, over pixels and "
        "channels) and ms_ssim (multi-scale, of the luminance, Su et al.'s second figure; for frames from 161x161)",
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there too')
    parser.epilog = '\n'.join(['protocols:', *(f'  {p.name:<14}{p.meaning}' for p in PROTOCOLS.values())])


def run(args: argparse.Namespace) -> None:
    """Prints a table for each protocol; raises DBLRError when the frames do not pair."""
    from dblr_plugin.evaluation.evaluate import evaluate
    from dblr_plugin.evaluation.scores import format_table, write_json

    protocols = choose_protocols(args.protocol or 'basicsr')
    if args.ssim == 'all':
        protocols = with_all_ssims(protocols)
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise DBLRError(f'--json: {args.json.parent} is not a folder; create it first')
    if args.json is not None and args.json.is_dir():
        raise DBLRError(f'--json: {args.json} is a folder; name a file')
    if args.json is not None:
        check_writable(args.json)
    entries = evaluate(args.results, args.truth, protocols)
    for entry in entries:
        print(f'\n{format_table(entry)}')
    if args.json is not None:
        write_json(args.json, _record(args, entries))
        print(f'\nwrote {args.json}')


def _record(args: argparse.Namespace, entries: list[dict]) -> dict:
    """The figures with what is needed to repeat them."""
    import basicsr
    import cv2
    import numpy as np

    modules = {'basicsr': basicsr, 'numpy': np, 'opencv': cv2}
    return {
        'results': args.results,
        'truth': args.truth,
        'figures': [{**entry, 'meaning': PROTOCOLS[entry['protocol']].meaning} for entry in entries],
        'versions': {'dblr_plugin': __version__, 'python': platform.python_version()}
        | {name: module.__version__ for name, module in modules.items()},
    }
