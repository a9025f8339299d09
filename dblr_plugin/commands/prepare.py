"""Bring data into the form that training reads.

dblr prepare lmdb SRC DST writes a folder of clips into an LMDB database in BasicSR's format.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dblr_plugin.data.lmdb_writer import write_lmdb
from dblr_plugin.data.store import open_store

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one subcommand for each kind of preparation, each with its own ``prepare`` function."""
    kinds = parser.add_subparsers(title='kinds', metavar='KIND', required=True)
    parser_lmdb = kinds.add_parser('lmdb', help='write a folder of clips into an LMDB database')
    parser_lmdb.add_argument('src', type=Path, metavar='SRC', help='folder of clips, SRC/<clip>/<frame>.png')
    parser_lmdb.add_argument('dst', type=Path, metavar='DST', help='database to create, its name ending in .lmdb')
    parser_lmdb.set_defaults(prepare=_prepare_lmdb)


def run(args: argparse.Namespace) -> None:
    """Runs the chosen preparation; raises DBLRError when the data or the paths do not allow it."""
    args.prepare(args)


def _prepare_lmdb(args: argparse.Namespace) -> None:
    frames = write_lmdb(args.src, args.dst)
    clips = len(open_store(args.dst).clips())
    size = (args.dst / 'data.mdb').stat().st_size
    print(f'{args.dst}: {clips} clips, {frames} frames, {size:,} bytes')
