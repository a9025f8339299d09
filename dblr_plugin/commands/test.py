"""Restore and score data sets with a trained network.

dblr test -opt options/test_DBLRGAN.yml [--force_yml path:pretrain_network_g=net.pth]
takes BasicSR's arguments and uses the working directory as its root: figures and pictures go to results/.
"""

from __future__ import annotations

import argparse
import sys

passes_arguments_on = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own: ``args.arguments`` are BasicSR's."""


def run(args: argparse.Namespace) -> None:
    """Tests."""
    from dblr_plugin.test import main

    sys.argv = ['dblr test', *args.arguments]
    main()
