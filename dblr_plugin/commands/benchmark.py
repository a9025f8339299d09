"""Train and test several methods under the same conditions, and write a report.

dblr benchmark -opt options/benchmark.yml [--only METHOD ...] [--nproc N]
Methods are ordinary option files with settings; options/benchmark.yml explains the file. Everything is written to
benchmarks/<name>/: report.md, report.csv, report.json, plots, restored frames, and the option files that repeat each
training and test; trainings also to experiments/<name>_<method>.

A method that fails is reported, and the others continue; the exit status is then 1. Stopped or run again, the command
does only what is missing. docs/your_own_method.md explains how to add your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds -opt, --only and --nproc."""
    parser.add_argument('-opt', type=Path, required=True, metavar='FILE', help='the benchmark file')
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='METHOD', help='run only these, and what they start from'
    )
    parser.add_argument('--nproc', type=int, default=1, metavar='N', help='processes that train together (default: 1)')


def run(args: argparse.Namespace) -> None:
    """Runs what is missing and writes the report; exits with status 1 if a method failed."""
    from dblr_plugin.benchmark.plan import read_plan
    from dblr_plugin.benchmark.plots import require_matplotlib
    from dblr_plugin.benchmark.report import write_report
    from dblr_plugin.benchmark.run import run_benchmark

    if args.nproc < 1:
        raise DBLRError(f'--nproc must be a number from 1, got {args.nproc}')
    require_matplotlib()
    plan = read_plan(args.opt)
    try:
        results = run_benchmark(plan, args.only, args.nproc, lambda text: print(text, flush=True))
    except (KeyboardInterrupt, SystemExit) as stop:
        print('stopped; run the same command again to continue', file=sys.stderr)
        sys.exit(getattr(stop, 'code', 130))
    page = write_report(plan, results)
    table = next(part for part in page.read_text(encoding='utf-8').split('\n\n') if part.startswith('| Method'))
    print(f'\n{table}\n\n{page}')
    if results.failures or results.timing_failure:
        sys.exit(1)
