"""Shared code of the speed programs: arguments, models to measure, and the report they write and print.

Each program measures all variants in interleaved rounds of one run: stock BasicSR or eager fp32, and ours. It prints
the tables of tables.py: medians, quartiles, speed-ups, and the share of the machine's limits that each variant reaches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import torch
from tables import page

from dblr_plugin.benchmark.record import describe_commit, describe_machine, describe_versions
from dblr_plugin.console import show_errors_in_one_line
from dblr_plugin.errors import DBLRError

if TYPE_CHECKING:
    from basicsr.models.base_model import BaseModel

_PACKAGES = (
    'dblr_plugin', 'basicsr', 'numpy', 'opencv-python', 'lmdb', 'torch', 'torchvision', 'openvino', 'mnn', 'zstandard',
)  # fmt: skip


def arguments(doc: str, seconds: float) -> argparse.ArgumentParser:
    """Creates a program's parser with ``--json`` and ``--seconds``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures there')
    text = f'time to measure for (default: {seconds:g})'
    parser.add_argument('--seconds', type=float, default=seconds, metavar='S', help=text)
    return parser


def run(kind: str, args: argparse.Namespace, method: dict, report: Callable[[argparse.Namespace], dict]) -> None:
    """Measures and prints its tables; writes the report, headed by the machine, versions, commit and method.

    Raises:
        DBLRError: The data or the paths do not allow it.
    """
    show_errors_in_one_line()
    # checked first, as it would otherwise fail only after the measurement
    if args.json is not None and (args.json.is_dir() or not args.json.parent.is_dir()):
        raise DBLRError(f'{args.json} cannot be written; name a file in a folder that exists')
    if not 0 <= args.seconds < math.inf:
        raise DBLRError(f'--seconds must be a number from 0, got {args.seconds}')
    found = {
        'schema': f'dblr_bench_{kind}/1',
        'machine': describe_machine(),
        'versions': describe_versions(_PACKAGES),
        'commit': describe_commit(),
        'method': method,
        **report(args),
    }
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + '\n', encoding='utf-8')
    print(*page(found), sep='\n')


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Gives PyTorch and OpenCV one thread each."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """Keeps log lines out of the tables; warnings get through."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def build_bench_model(kind: str, folder: Path, **sections: Any) -> BaseModel:
    """Builds a model, on the first GPU if there is one.

    Args:
        kind: Model class.
        folder: Output folder.
        sections: Options besides names, paths and devices: ``network_g`` and so on.
    """
    from basicsr.models import build_model

    paths = {key: folder / key for key in ('models', 'training_states', 'visualization', 'log')}
    for path in paths.values():
        path.mkdir(exist_ok=True)
    return build_model({
        'name': kind, 'model_type': kind, 'scale': 1, 'manual_seed': 0, 'is_train': 'train' in sections,
        'num_gpu': min(torch.cuda.device_count(), 1), 'dist': False, 'rank': 0, 'world_size': 1, 'logger': {},
        'path': {key: str(path) for key, path in paths.items()},
        **sections,
    })  # fmt: skip
