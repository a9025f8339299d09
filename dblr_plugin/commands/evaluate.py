"""Score restored frames against the ground truth under a named protocol, or without ground truth.

dblr evaluate RESULTS [GT] [--protocol all] [--metric ms_ssim --metric lpips] [--json scores.json]
compares two folders of clips, two LMDB databases or two folders of one clip each, frame by frame, paired by name; or
two videos. Names as tests write them, such as 00000000_test_DBLRNet.png, are paired with 00000000.
dblr evaluate RESULTS --metric niqe
scores a folder, a database or a video without ground truth.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS, choose_protocols, with_metrics
from dblr_plugin.files import check_writable
from dblr_plugin.version import __version__
from dblr_plugin.yaml_file import import_files

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds RESULTS, GT, --protocol, --metric, --imports and --json; the help explains each protocol."""
    parser.add_argument('results', metavar='RESULTS', help='restored frames: RESULTS/<clip>/<frame>.png, or a video')
    truth_help = 'sharp frames, in the same layout; without them, only metrics such as niqe'
    parser.add_argument('truth', metavar='GT', nargs='?', help=truth_help)
    protocol_help = 'a name below, or all; may be repeated (default: basicsr)'
    parser.add_argument('--protocol', action='append', metavar='NAME', help=protocol_help)
    parser.add_argument(
        '--metric',
        action='append',
        default=[],
        metavar='NAME',
        help="a metric in addition to the protocol's PSNR and SSIM: ssim_2d (mean of channels), ssim_3d (MATLAB's, "
        "over pixels and channels), ms_ssim (multi-scale, of the luminance, Su et al.'s second score; for frames from "
        '161x161), lpips, warping_error (temporal consistency), niqe (needs no GT), or one that --imports registers; '
        'may be repeated',
    )
    imports_help = "a Python file that registers metrics with BasicSR's METRIC_REGISTRY"
    parser.add_argument('--imports', action='append', default=[], metavar='FILE.py', help=imports_help)
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the scores to this file')
    parser.epilog = '\n'.join(['protocols:', *(f'  {p.name:<14}{p.meaning}' for p in PROTOCOLS.values())])


def run(args: argparse.Namespace) -> None:
    """Prints a table for each protocol; raises DBLRError if frames do not pair or a metric is unknown."""
    from dblr_plugin.evaluation.evaluate import evaluate
    from dblr_plugin.evaluation.metrics import check_metrics, find_metric
    from dblr_plugin.evaluation.scores import format_table, write_json

    protocols = choose_protocols(args.protocol or 'basicsr')
    import_files(args.imports)
    metrics = {name: {'type': name} for name in args.metric}
    check_metrics(metrics)
    for name in metrics:
        if args.truth is None and find_metric(name).needs_gt:
            raise DBLRError(f'--metric {name} compares with the ground truth; give GT after RESULTS')
    protocols = with_metrics(protocols, metrics)
    if args.json is not None:
        if not args.json.absolute().parent.is_dir():
            raise DBLRError(f'--json: {args.json.parent} is not a folder; create it first')
        if args.json.is_dir():
            raise DBLRError(f'--json: {args.json} is a folder; name a file')
        check_writable(args.json)
    entries = evaluate(args.results, args.truth, protocols)
    for entry in entries:
        print(f'\n{format_table(entry)}')
    if args.json is not None:
        write_json(args.json, _record(args, entries))
        print(f'\nwrote {args.json}')


def _record(args: argparse.Namespace, entries: list[dict]) -> dict:
    """Returns the figures with what is needed to reproduce them."""
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
