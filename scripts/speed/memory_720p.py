"""The memory needed for a 720p frame: in plain PyTorch, and as ``dblr deblur`` restores it.

    python scripts/speed/memory_720p.py

The paper's network with random weights; each variant in its own process, as in :mod:`dblr_plugin.benchmark.timing`.
"""

import argparse
from functools import partial

import torch

from dblr_plugin.archs import DBLRNet
from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.benchmark.timing import peak_memory
from dblr_plugin.restore.frame_restorer import build_restorer

SHAPE = 1, 5, 1, 720, 1280


def plain() -> partial:
    """Returns a function that restores a window in plain PyTorch."""
    return torch.no_grad()(partial(DBLRNet().eval(), torch.rand(SHAPE)))


def deblur() -> partial:
    """Returns a function that restores it as ``dblr deblur`` does."""
    restorer = build_restorer(DBLRNet(), NetworkTraits.of({'type': 'DBLRNet'}), torch.device('cpu'))
    return partial(restorer.restore, torch.rand(SHAPE), torch.rand(1, 3, 720, 1280))


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    before, after = (peak_memory(make, torch.device('cpu')) / 1e6 for make in (plain, deblur))
    print(f'plain fp32: {before:.0f} MB, dblr deblur: {after:.0f} MB, {after / before:.0%}')
