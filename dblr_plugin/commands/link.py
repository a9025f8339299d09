"""Add this plugin to a BasicSR checkout.

dblr link CHECKOUT writes a few small files and the option files there. In that checkout,
python basicsr/train.py -opt options/train_DBLRGAN.yml then trains with the plugin's classes.
"""

from __future__ import annotations

import argparse

from dblr_plugin import link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds CHECKOUT and --unlink."""
    parser.add_argument('checkout', metavar='CHECKOUT', help='folder that holds basicsr/ and VERSION')
    parser.add_argument('--unlink', action='store_true', help='remove the files written, unless changed since')


def run(args: argparse.Namespace) -> None:
    """Links or unlinks, and lists the files written, removed or kept."""
    if not args.unlink:
        for path in link.link(args.checkout):
            print(f'wrote   {path}')
        return
    removed, kept = link.unlink(args.checkout)
    for path in removed:
        print(f'removed {path}')
    for path in kept:
        print(f'kept    {path} (changed since it was written)')
