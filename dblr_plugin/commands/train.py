"""Train a network with BasicSR's trainer.

dblr train -opt options/train_DBLRGAN.yml [--auto_resume] [--set KEY=VALUE ...] [--protocol all]
takes BasicSR's arguments and uses the working directory as its root: experiments/ and tb_logger/ are created there.
On several GPUs: torchrun --nproc_per_node=N -m dblr_plugin.train -opt options/train_DBLRGAN.yml

--set changes options for this run; values are YAML, and checked like those of the file:
  --set train.total_iter=1000 train.optim_g.lr=1e-5 train.scheduler.milestones=[500,800] path.resume_state=null
BasicSR's form of it works too: --force_yml train:total_iter=1000
--protocol validates by a named protocol instead of val.metrics; dblr evaluate --help lists their names.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ['add_arguments', 'add_shared_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds BasicSR's arguments and ours, for help and checking; ``parse_options`` reads them."""
    add_shared_arguments(parser)
    parser.add_argument('--auto_resume', action='store_true', help='resume from the newest checkpoint, if there is one')
    parser.add_argument('--debug', action='store_true', help='the run is called debug_NAME and validates often')


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that training and testing share."""
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file')
    setting: dict[str, Any] = {'nargs': '+', 'action': 'append', 'metavar': 'KEY=VALUE'}
    parser.add_argument('--set', help='change options for this run', **setting)
    parser.add_argument('--force_yml', help="the same in BasicSR's form, KEY:KEY=VALUE", **setting)
    parser.add_argument('--protocol', action='append', metavar='NAME', help='score by this protocol, or all of them')
    launcher_help = 'what launched the processes (default: none; torchrun is detected)'
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none', help=launcher_help)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """Runs the training."""
    from dblr_plugin.train import main

    sys.argv = ['dblr train', *args.arguments]
    main()
