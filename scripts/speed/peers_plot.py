"""Draws what ``peers.py`` measured: frames of 720p a second for each network and way.

python scripts/speed/peers_plot.py     (of docs/speed/results/peers.json, into docs/speed)
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dblr_plugin.benchmark.plots import Theme, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ['main']

DOCS = Path(__file__).parents[2] / 'docs/speed'
WAYS = ('eager fp32', 'openvino fp32', 'openvino int8')


def _paint(networks: dict[str, dict], figure: Figure, theme: Theme) -> None:
    ax = figure.subplots()
    for number, way in enumerate(WAYS):
        found = {row: network['ways'][way] for row, network in enumerate(networks.values()) if way in network['ways']}
        rows = [row + 0.27 * (number - 1) for row in found]
        bars = ax.barh(rows, [f['frames_720p'] for f in found.values()], 0.25, color=theme.methods[number], label=way)
        ax.bar_label(bars, fmt='%.2g', padding=3, fontsize=8, color=theme.text)
    ax.set_yticks(range(len(networks)), [f'{n}\n{network["kmacs"]:.0f} kMAC/pixel' for n, network in networks.items()])
    ax.invert_yaxis()
    ax.set_xscale('log')
    ax.grid(axis='y', visible=False)
    ax.set_xlabel('frames of 1280x720 a second')
    ax.legend(loc='lower right', frameon=False)


def main() -> None:
    """Runs the program."""
    networks = json.loads((DOCS / 'results/peers.json').read_text())['networks']
    draw(DOCS, 'peers', (8, 0.7 * len(networks) + 1), partial(_paint, networks))


if __name__ == '__main__':
    main()
