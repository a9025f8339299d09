"""Train a network with BasicSR's trainer.

dblr train -opt options/train_DBLRGAN.yml [--auto_resume] [--protocol all] [--force_yml train:total_iter=1000]
takes BasicSR's arguments and uses the working directory as its root: experiments/ and tb_logger/ are made there.
On several GPUs: torchrun --nproc_per_node=N -m dblr_plugin.train -opt options/train_DBLRGAN.yml
"""

from __future__ import annotations

import argparse
import sys

passes_arguments_on = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own: ``args.arguments`` are BasicSR's."""


def run(args: argparse.Namespace) -> None:
    """Trains."""
    from dblr_plugin.train import main

    sys.argv = ['dblr train', *args.arguments]
    main()
