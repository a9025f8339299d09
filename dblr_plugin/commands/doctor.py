"""Find out what is wrong with this installation, this machine or your data, and how to mend it.

dblr doctor                                      checks Python, packages, operators, devices, starting of processes
dblr doctor -opt options/train_DBLRNet.yml       checks the option file, its data and its weights too

Each line is ok, a note or a FAULT; faults and notes come with the cure. Exit status 1 means that there are faults.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter

from dblr_plugin.doctor import FAULT, NOTE, OK, Finding, checks, examine

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """-opt."""
    parser.add_argument('-opt', metavar='FILE', help='option file of a training or a test')


def run(args: argparse.Namespace) -> None:
    """Prints what is found, as it is found, and how many faults and notes; raises SystemExit for a fault."""
    if not hasattr(os, 'fork'):
        sys.exit('dblr doctor: the plugin is for Linux; on Windows, use WSL')
    counts: Counter[str] = Counter()
    subject = None
    for check, finding in examine(checks(args.opt)):
        if check.subject != subject:
            subject = check.subject
            print(f'\n{subject}')
        _print_finding(finding)
        counts[finding.level] += 1
    print(f'\n{_counted(counts[FAULT], "fault")}, {_counted(counts[NOTE], "note")}, {counts[OK]} ok')
    if counts[FAULT]:
        sys.exit(1)


def _print_finding(finding: Finding) -> None:
    print(f'  {finding.level:<5}  {finding.text}')
    if finding.cure:
        print(f'         cure: {finding.cure}')
    for command in finding.commands:
        print(f'           {command}')
    sys.stdout.flush()


def _counted(number: int, noun: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"}'
