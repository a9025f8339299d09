"""Adds a checkpoint to the weights that come with the package, as float16.

    python scripts/weights/ship.py light experiments/light_annealed/models/net_g_latest.pth --share 0.85

``--share`` scales what the network adds to the blurry frame: videos are less sharp than downscaled photographs, so
slightly less is as good where there is blur, and better where there is none (docs/weights.md).
Checksum and results belong in ``dblr_plugin/weights/shipped.py`` and the ``README.md`` beside it.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch

import dblr_plugin
from dblr_plugin.weights.checkpoint import FORMAT_VERSION, save_atomically
from dblr_plugin.weights.shipped import SHIPPED

TRAINED_ON = '223 free photographs in synthetic motion (scripts/weights/pictures.tsv), and drawn pages'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', choices=SHIPPED)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('--share', type=float, default=0.85)
    args = parser.parse_args()
    content = torch.load(args.checkpoint, map_location='cpu', weights_only=True)
    weights = content['params_ema']
    for part in ('last.weight', 'last.bias'):
        weights[part] = weights[part] * args.share
    shipped = {
        'params': {key: value.half().contiguous() for key, value in weights.items()},
        'network': content['network'],
        'format_version': FORMAT_VERSION,
        'trained_on': TRAINED_ON,
    }
    path = SHIPPED[args.name].path
    save_atomically(shipped, path)
    print(f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}')


if __name__ == '__main__':
    dblr_plugin.register()
    main()
