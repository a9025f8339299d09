"""Train a network with BasicSR's trainer.

dblr train -opt options/train_DBLRGAN.yml [--auto_resume] [--set KEY=VALUE ...] [--protocol all]
takes BasicSR's arguments and uses the working directory as its root: experiments/ and tb_logger/ are made there.
On several GPUs: torchrun --nproc_per_node=N -m dblr_plugin.train -opt options/train_DBLRGAN.yml

--set changes options for this run; values are YAML, and checked like those of the file:
  --set train.total_iter=1000 train.optim_g.lr=1e-5 train.scheduler.milestones=[500,800] path.resume_state=null
BasicSR's form of it works too: --force_yml train:total_iter=1000
--protocol validates by a named protocol instead of val.metrics; dblr evaluate --help lists their names.
"""

from __future__ import annotations

import argparse
import sys

passes_arguments_on = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own: ``args.arguments`` are for ``parse_options``."""


def run(args: argparse.Namespace) -> None:
    """Trains."""
    from dblr_plugin.train import main

    if {'-h', '--help'} & {*args.arguments}:
        print(__doc__)  # BasicSR's own help follows, and ends the program
    sys.argv = ['dblr train', *args.arguments]
    main()
