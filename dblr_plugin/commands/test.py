"""Restore and score data sets with a trained network.

dblr test -opt options/test_DBLRGAN.yml [--protocol all] [--set KEY=VALUE ...]
takes BasicSR's arguments and uses the working directory as its root: scores and images go to results/.

--protocol scores by a named protocol instead of val.metrics; dblr evaluate --help lists their names.
--set changes options for this run; values are YAML, and checked like those of the file:
  --set path.pretrain_network_g=net.pth val.save_img=false
BasicSR's form of it works too: --force_yml path:pretrain_network_g=net.pth
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dblr_plugin.commands.train import add_shared_arguments

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds BasicSR's arguments and ours, for help and checking; ``parse_options`` reads them."""
    add_shared_arguments(parser)
    parser.add_argument('--auto_resume', action='store_true', help=argparse.SUPPRESS)  # BasicSR ignores it in tests
    parser.add_argument('--debug', action='store_true', help='the test is called debug_NAME')


def run(args: argparse.Namespace) -> None:
    """Tests, and prints a table of scores for each data set under each protocol."""
    from dblr_plugin import hooks
    from dblr_plugin.test import main

    sys.argv = ['dblr test', *args.arguments]
    main()
    if hooks.parsed_options['rank'] == 0:
        _print_figures(Path(hooks.parsed_options['path']['log']) / 'metrics.json')


def _print_figures(path: Path) -> None:
    from dblr_plugin.evaluation.scores import format_table

    # there is no such file when no data set has ground truth
    for entry in json.loads(path.read_text()) if path.exists() else []:
        print(f'\n{entry["dataset"]}, {format_table(entry)}')
