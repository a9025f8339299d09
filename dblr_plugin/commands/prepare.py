"""Convert data into the layout that training reads.

dblr prepare dvd|dvd-qualitative|gopro|reds|bsd|kitti SRC DST
    checks a data set as its authors distribute it, and links it into DST/{train,test}/{lq,gt}/<clip>/<frame>
dblr prepare video SRC DST
    makes blurry and sharp clips from sharp videos
dblr prepare motion SRC DST
    makes training windows with synthetic motion from sharp images (SyntheticMotionDataset)
dblr prepare lmdb SRC DST
    writes a folder of clips into an LMDB database: in BasicSR's format, or as tiles (--tiles)

If one is stopped, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dblr_plugin
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.prepare.data_sets import (
    BSD_EXPOSURES,
    GOPRO_BLURS,
    REDS_BLURS,
    plan_bsd,
    plan_dvd,
    plan_dvd_qualitative,
    plan_gopro,
    plan_kitti,
    plan_reds,
)

if TYPE_CHECKING:
    from dblr_plugin.prepare.data_sets import Plan
    from dblr_plugin.prepare.tree import DatabaseKind

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a subcommand for each kind of preparation, with its own ``prepare`` function."""
    kinds = parser.add_subparsers(title='kinds', metavar='KIND', required=True)
    _add_layout(kinds, 'dvd', 'VideoDeblurring (DVD), 61 training and 10 test videos', plan_dvd)
    _add_layout(kinds, 'dvd-qualitative', "DVD's 22 scenes without ground truth", plan_dvd_qualitative)
    _add_layout(kinds, 'gopro', 'GoPro (GOPRO_Large)', plan_gopro, '--blur', GOPRO_BLURS)
    _add_layout(kinds, 'reds', 'REDS', plan_reds, '--blur', REDS_BLURS)
    exposures = dict.fromkeys(BSD_EXPOSURES, '')
    text = 'BSD, beam-splitter recordings at given exposure times of the sharp and the blurry camera'
    _add_layout(kinds, 'bsd', text, plan_bsd, '--exposure', exposures)
    _add_layout(kinds, 'kitti', 'Blurred KITTI, test only', plan_kitti)
    _add_video(kinds)
    _add_motion(kinds)
    parser_lmdb = kinds.add_parser('lmdb', help='write a folder of clips into an LMDB database')
    parser_lmdb.add_argument('src', type=Path, metavar='SRC', help='folder of clips, SRC/<clip>/<frame>.png')
    parser_lmdb.add_argument('dst', type=Path, metavar='DST', help='database to create; its name must end in .lmdb')
    parser_lmdb.add_argument('--tiles', action='store_true', help='cut into tiles for fast training')
    parser_lmdb.set_defaults(prepare=_prepare_lmdb)


def run(args: argparse.Namespace) -> None:
    """Runs the chosen preparation; raises DBLRError if the data or the paths do not allow it."""
    try:
        args.prepare(args)
    except KeyboardInterrupt:
        print('stopped; run the same command again to continue', file=sys.stderr)
        sys.exit(130)


def _add_layout(
    kinds: argparse._SubParsersAction,
    name: str,
    text: str,
    plan: Callable[..., Plan],
    option: str = '',
    choices: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Adds a data set: ``plan`` makes its plan from the folder, and from the value of ``option`` if there is one."""
    parser = kinds.add_parser(name, help=text, description=text)
    parser.add_argument('src', type=Path, metavar='SRC', help='the unpacked download')
    parser.add_argument('--copy', action='store_true', help='copy the files instead of linking them')
    parser.add_argument('--allow-partial', action='store_true', help='leave out clips that have faults')
    explained = '; '.join(f'{value} ({meaning})' if meaning else value for value, meaning in choices.items())
    if option:
        parser.add_argument(option, dest='variant', choices=choices, help=explained)
    _add_results(parser)

    def prepare(args: argparse.Namespace) -> None:
        from dblr_plugin.prepare.layout import prepare_layout
        from dblr_plugin.prepare.tree import summary

        if option and args.variant is None:
            raise DBLRError(f'{option} is missing, and scores depend on it. Give one of: {explained}')
        planned = plan(args.src, args.variant) if option else plan(args.src)
        print(summary(args.dst, prepare_layout(planned, args.dst, args.copy, args.allow_partial, _databases(args))))
        if name == 'kitti':
            print('three frames do not fill a window of five: test_DBLRNet_KITTI.yml fills it by padding: replicate')

    parser.set_defaults(prepare=prepare)


def _add_video(kinds: argparse._SubParsersAction) -> None:
    text = 'blurry and sharp clips made from sharp videos'
    parser = kinds.add_parser('video', help=text, argument_default=argparse.SUPPRESS)
    parser.add_argument('src', type=Path, metavar='SRC', help='a video, a folder of frames, or a folder of either')
    average_help = 'source frames in one exposure, odd; each number gives clips of its own (default: 7)'
    parser.add_argument('--average', type=int, nargs='+', metavar='N', help=average_help)
    parser.add_argument('--stride', type=int, help='source frames from one exposure to the next (default: --average)')
    flow_help = 'frames interpolated by optical flow between two source frames (default: 0)'
    parser.add_argument('--in-between', type=int, metavar='K', help=flow_help)
    shake_help = 'simulate a hand-held camera that shakes by this many pixels (default: 0)'
    parser.add_argument('--shake', type=float, metavar='AMPLITUDE', help=shake_help)
    share_help = 'share at the end of each shot that is kept for testing (default: 0.2)'
    parser.add_argument('--test-share', type=float, help=share_help)
    parser.add_argument('--seed', type=int, help='random seed of the shake (default: 0)')
    _add_results(parser)
    parser.set_defaults(prepare=_prepare_video)


def _add_motion(kinds: argparse._SubParsersAction) -> None:
    text = 'windows of synthetic motion made from sharp images'
    parser = kinds.add_parser('motion', help=text, argument_default=argparse.SUPPRESS)
    parser.add_argument('src', type=Path, metavar='SRC', help='folder of sharp images')
    parser.add_argument('dst', type=Path, metavar='DST', help='folder to create, such as datasets/motion')
    parser.add_argument('--windows', type=int, help='number of windows (default: 50000)')
    parser.add_argument('--size', type=int, help='side of the windows in pixels (default: 128)')
    parser.add_argument('--num-frame', type=int, help='frames per window (default: 5)')
    parser.add_argument('--y-only', action='store_true', help='Y channel only, a third of the size')
    parser.add_argument('--causal', action='store_true', help='restore the last frame of a window, not the middle one')
    parser.add_argument('--seed', type=int, help='random seed (default: 0)')
    parser.add_argument('--processes', type=int, help='number of processes (default: one per core)')
    parser.set_defaults(prepare=_prepare_motion)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('dst', type=Path, metavar='DST', help='folder to create, such as datasets/DVD')
    for option, text in (
        ('--lmdb', 'databases (DST/train_lq.lmdb)'),
        ('--tiles', 'tiles for fast training (DST/train_lq.tiles.lmdb)'),
    ):
        # explicit, as prepare video suppresses defaults
        parser.add_argument(option, action='store_true', default=False, help=f'write {text} as well')


def _databases(args: argparse.Namespace) -> list[DatabaseKind]:
    from dblr_plugin.prepare.tree import LMDB, TILES

    return [kind for kind, wanted in ((LMDB, args.lmdb), (TILES, args.tiles)) if wanted]


def _prepare_video(args: argparse.Namespace) -> None:
    from dblr_plugin.prepare.exposures import BlurSettings
    from dblr_plugin.prepare.tree import summary
    from dblr_plugin.prepare.video import prepare_video

    settings = BlurSettings(**_given(args, BlurSettings))
    print(summary(args.dst, prepare_video(args.src, args.dst, settings, _databases(args))))


def _prepare_motion(args: argparse.Namespace) -> None:
    dblr_plugin.register_within_work()
    from dblr_plugin.prepare.motion import MotionSettings, prepare_motion

    info = prepare_motion(args.src, args.dst, MotionSettings(**_given(args, MotionSettings)))
    size = info.windows * math.prod(info.shape)
    windows, frames = counted(info.windows, 'window'), counted(info.num_frame, 'frame')
    print(f'{args.dst}: {windows} of {frames}, {size:,} bytes, of {info.source}')


def _given(args: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Returns the given settings, lists as tuples; the others keep the defaults of the class."""
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(settings) if field.name in args}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _prepare_lmdb(args: argparse.Namespace) -> None:
    from dblr_plugin.data import open_store, write_lmdb, write_tiles

    frames = (write_tiles if args.tiles else write_lmdb)(args.src, args.dst)
    clips = len(open_store(args.dst).clips())
    size = (args.dst / 'data.mdb').stat().st_size
    print(f'{args.dst}: {counted(clips, "clip")}, {counted(frames, "frame")}, {size:,} bytes')
