"""List the weights that come with the package.

For each: how much it restores, how large it is, what it is for. Other commands accept these names in place of a file:

dblr deblur -i shaky.mp4 -o sharp.mp4 --weights light
"""

from __future__ import annotations

import argparse

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no arguments."""


def run(args: argparse.Namespace) -> None:
    """Prints a table; raises DBLRError if a file is missing or damaged."""
    from dblr_plugin.weights.shipped import SHIPPED, find_weights

    print(f'{"--weights":<14}{"averaged":>10}{"hand-held":>11}{"sharp":>8}{"kMAC/px":>9}{"MB":>6}')
    for name, weights in SHIPPED.items():
        size = find_weights(name).stat().st_size / 1e6
        figures = f'{weights.motion:+10.2f}{weights.hand:+11.2f}{weights.sharp:8.1f}{weights.kmacs:9.1f}{size:6.1f}'
        print(f'{name:<14}{figures}  {weights.purpose}')
    print()
    print('averaged, hand-held: gain in PSNR, dB, on 12 videos not used for training, blurred by averaging frames')
    print('                     and by a simulated hand-held camera')
    print('sharp: PSNR of their sharp frames after restoration, dB; kMAC/px: thousand multiply-adds per pixel')
    print('how they were trained and measured: docs/weights.md')
