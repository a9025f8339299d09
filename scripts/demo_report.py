"""The demo's figures: read from the tests' metrics.json, shown as a table, kept as a summary."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation import PROTOCOLS

__all__ = ['METHODS', 'PROTOCOL', 'Method', 'check_gain', 'format_table', 'read_figures', 'write_summary']

PROTOCOL = 'basicsr'
PROTOCOL_MEANING = PROTOCOLS[PROTOCOL].meaning


@dataclass(frozen=True)
class Method:
    """A row of the table: its label and the names of its option files (and so of its runs)."""

    label: str
    test: str
    training: str | None = None


METHODS = (
    Method('blurry input', 'demo_test_blurry'),
    Method('DBLRNet', 'demo_test_DBLRNet', 'demo_DBLRNet'),
    Method('DBLRGAN', 'demo_test_DBLRGAN', 'demo_DBLRGAN'),
)


def read_figures(root: Path) -> dict[str, dict]:
    """Returns each method's latest test result by label.

    Args:
        root: The folder that holds ``results``.

    Returns:
        label -> ``{'mean': {'psnr': dB, 'ssim': value}, 'clips': {clip: {'psnr': dB, 'ssim': value}}}``.

    Raises:
        DBLRError: The figures were made under another protocol than :data:`PROTOCOL`.
    """
    figures = {}
    for method in METHODS:
        path = root / 'results' / method.test / 'metrics.json'
        entry = json.loads(path.read_text())[-1]
        if entry['protocol'] != PROTOCOL:
            raise DBLRError(f"{path}: measured under protocol '{entry['protocol']}' instead of '{PROTOCOL}'")
        figures[method.label] = {'mean': entry['mean'], 'clips': entry['clips']}
    return figures


def format_table(figures: dict[str, dict]) -> str:
    """Formats the figures: one row for each method; columns are the mean and each clip."""
    clips = list(next(iter(figures.values()))['clips'])
    lines = [
        f'Validation clips, protocol "{PROTOCOL}": {PROTOCOL_MEANING}; PSNR in dB / SSIM',
        '',
        f'{"":<14}' + ''.join(f'{title:>18}' for title in ('mean', *clips)),
    ]
    for label, entry in figures.items():
        values = (entry['mean'], *(entry['clips'][clip] for clip in clips))
        lines.append(f'{label:<14}' + ''.join(f'{v["psnr"]:>9.2f} / {v["ssim"]:.4f}' for v in values))
    return '\n'.join(lines)


def check_gain(figures: dict[str, dict]) -> None:
    """Raises DBLRError unless DBLRNet's mean PSNR is above the blurry input's."""
    blurry, restored = (figures[label]['mean']['psnr'] for label in ('blurry input', 'DBLRNet'))
    if not restored > blurry:
        raise DBLRError(f'DBLRNet ({restored:.2f} dB) does not beat the blurry input ({blurry:.2f} dB)')


def write_summary(path: Path, figures: dict[str, dict], recipe: dict, seconds: dict[str, float], fast: bool) -> None:
    """Writes everything needed to judge and repeat the figures as JSON.

    Args:
        path: The file.
        figures: As :func:`read_figures` returns them.
        recipe: How the clips were made, as ``make_clips`` returns it.
        seconds: Duration of each step.
        fast: Whether it was a smoke run, whose figures mean nothing.
    """
    packages = ('dblr_plugin', 'basicsr', 'torch', 'torchvision', 'numpy', 'opencv-python', 'av')
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'
    summary = {
        'command': ' '.join(['python', *sys.argv]),
        'smoke_run': fast,
        'protocol': {'name': PROTOCOL, 'meaning': PROTOCOL_MEANING},
        'figures': figures,
        'data': recipe,
        'seconds': {**seconds, 'total': round(sum(seconds.values()), 1)},
        'versions': {'python': platform.python_version(), **{name: version(name) for name in packages}},
        'machine': {'device': device, 'cpus': os.cpu_count()},
    }
    path.write_text(json.dumps(summary, indent=2) + '\n')
