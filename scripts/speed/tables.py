"""Markdown tables of what the speed programs measured, as in docs/speed/README.md; draws the picture of ``peers.py``.

python scripts/speed/tables.py [FILE ...]     (without files: all of docs/speed/results, and the picture beside them)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dblr_plugin.benchmark.plots import Theme, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[2] / 'docs/speed/results'

# key of a variant -> title and format of its column; null is shown as a dash
_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    'ratio': ('times', '{:.2f}x'.format),
    'median_ms': ('median, ms', '{:.1f}'.format),
    'quartiles_ms': ('quartiles, ms', lambda pair: '{:.1f} to {:.1f}'.format(*pair)),
    'gflops': ('GFLOPS', '{:.0f}'.format),
    'share': ('share of limit', '{:.0%}'.format),
    'bytes_ratio': ('bytes', '{:.2f}x'.format),
    'decibels': ('dB to eager', '{:.0f}'.format),
    'frames_720p': ('frames of 720p per second', '{:.2f}'.format),
    'peak_bytes': ('MB', lambda value: f'{value / 1e6:.0f}'),
    'difference': ('difference', '{:+.0e}'.format),
    'psnr_difference': ('PSNR difference', '{:+.0e}'.format),
    'ssim_difference': ('SSIM difference', '{:+.0e}'.format),
}


def page(report: dict) -> Iterator[str]:
    """Yields the lines of a report: machine and versions, then a table for each set of variants, with its limits."""
    machine, versions = report['machine'], report['versions']
    versions = ', '.join(f'{name} {versions[name]}' for name in ('torch', 'basicsr', 'python'))
    threads = f'{report["threads"]} threads, ' if 'threads' in report else ''
    cores = f'{machine["cores"]} cores, {threads}{machine["memory"] / 2**30:.0f} GiB'
    yield f'{report.get("device", "cpu")}; {machine["processor"]}, {cores}; {versions}; commit {report["commit"]}'
    for title, part in _parts(report):
        if 'limits' in part:
            yield ''
            yield 'Limits: ' + ', '.join(f'{n} {m["speed"]:.0f} {m["unit"]}' for n, m in part['limits'].items()) + '.'
        if 'ways' in part:
            yield from ('', f'**{title}**', '', *_table(part['ways']))


def _parts(report: dict) -> Iterator[tuple[str, dict]]:
    """Yields the parts of a report that have variants or limits, with their titles."""
    yield report.get('origin', ''), report
    for part in report.get('sets', []):
        yield part['origin'], part
    for name, part in (report.get('networks') or report.get('models') or {}).items():
        yield f'{name}, {part["kmacs"]:.1f} thousand multiply-adds per pixel' if 'kmacs' in part else name, part
    if 'video' in report:
        latency = report['video']['ways']['dblr deblur']['latency_ms']['median']
        yield f'video of {report["video"]["frames"]} frames, file to file, latency {latency:.1f} ms', report['video']


def _table(ways: dict[str, dict]) -> Iterator[str]:
    columns = {key: column for key, column in _COLUMNS.items() if all(key in way for way in ways.values())}
    yield '| | ' + ' | '.join(title for title, _ in columns.values()) + ' |'
    yield '|---' * (len(columns) + 1) + '|'
    for way in ways.values():
        cells = ('-' if way[key] is None else show(way[key]) for key, (_, show) in columns.items())
        yield f'| {way["text"]} | ' + ' | '.join(cells) + ' |'


_WAYS = ('eager fp32', 'openvino fp32', 'openvino int8', 'mnn fp32')


def draw_peers(networks: dict[str, dict], folder: Path) -> None:
    """Plots 720p frames per second for each network and variant as ``peers_light.png`` and ``peers_dark.png``."""
    draw(folder, 'peers', (8, 0.7 * len(networks) + 1), partial(_paint, networks))


def _paint(networks: dict[str, dict], figure: Figure, theme: Theme) -> None:
    ax = figure.subplots()
    for number, way in enumerate(_WAYS):
        found = {row: network['ways'][way] for row, network in enumerate(networks.values()) if way in network['ways']}
        rows = [row + 0.21 * (number - 1.5) for row in found]
        bars = ax.barh(rows, [f['frames_720p'] for f in found.values()], 0.2, color=theme.methods[number], label=way)
        ax.bar_label(bars, fmt='%.2g', padding=3, fontsize=8, color=theme.text)
    ax.set_yticks(range(len(networks)), [f'{n}\n{network["kmacs"]:.0f} kMAC/pixel' for n, network in networks.items()])
    ax.invert_yaxis()
    ax.set_xscale('log')
    ax.grid(axis='y', visible=False)
    ax.set_xlabel('frames of 1280x720 per second')
    ax.legend(loc='lower right', frameon=False)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', type=Path, metavar='FILE', help='what a speed program wrote with --json')
    files = parser.parse_args().files
    for file in files or sorted(RESULTS.glob('*.json')):
        found = json.loads(file.read_text())
        print(f'### {found["schema"].split("_")[2].split("/")[0]} ({file.name})\n')
        print(*page(found), '', sep='\n')
    if not files:
        draw_peers(json.loads((RESULTS / 'peers.json').read_text())['networks'], RESULTS.parent)
