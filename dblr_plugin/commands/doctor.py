"""Find out what is wrong with this installation, this machine or your data, and how to fix it.

dblr doctor                                      checks Python, packages, operators, devices, whether processes start
dblr doctor -opt options/train_DBLRNet.yml       checks the option file, its data and its weights too

Each line is ok, a note or a FAULT; notes and faults say what to do. Exit status 1 means that there are faults.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from dblr_plugin.doctor import FAULT, NOTE, OK, examine
from dblr_plugin.errors import counted

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds -opt."""
    parser.add_argument('-opt', metavar='FILE', help='option file of a training or a test')


def run(args: argparse.Namespace) -> None:
    """Prints findings as they come, then the number of faults and notes; raises SystemExit if there are faults."""
    counts: Counter[str] = Counter()
    printed = None
    for heading, finding in examine(args.opt):
        if heading != printed:
            printed = heading
            print(f'\n{heading}')
        print(f'  {finding.level:<5}  {finding.text}')
        if finding.level != OK and finding.fix:
            print(f'         fix: {finding.fix}')
            for command in finding.commands:
                print(f'           {command}')
        sys.stdout.flush()
        counts[finding.level] += 1
    print(f'\n{counted(counts[FAULT], "fault")}, {counted(counts[NOTE], "note")}, {counts[OK]} ok')
    if counts[FAULT]:
        sys.exit(1)
