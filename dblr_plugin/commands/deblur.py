"""Restore a video, a folder of frames, or an image.

dblr deblur -i shaky.mp4 -o sharp.mp4 --weights net_g_latest.pth
dblr deblur -i frames/ -o restored/ --weights net_g_latest.pth      # or -i 'frames/*.png'

Every frame in is a frame out; sound, subtitles, frame times, colour and depth stay as they are. No window reaches
across a cut. Weights trained with dblr_plugin say of which network they are; for others give their option file, -opt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments; names as in BasicSR's inference scripts."""
    parser.add_argument('-i', '--input', required=True, help='video, folder of frames, glob, or image')
    parser.add_argument('-o', '--output', required=True, help='video file, or folder for frames')
    parser.add_argument('--weights', required=True, type=Path, metavar='FILE', help='.pth of the network')
    parser.add_argument('-opt', type=Path, metavar='FILE', help='option file that the weights were trained with')
    parser.add_argument('--suffix', default='', help='added to the names of frames')
    parser.add_argument('--start', metavar='TIME', help='where to begin: seconds or h:mm:ss; frame number in folders')
    parser.add_argument('--end', metavar='TIME', help='where to end')
    parser.add_argument('--scale-down', type=float, default=1, metavar='N', help='shrink frames N times, for trials')
    parser.add_argument('--compare', action='store_true', help='left half blurry, right half restored')
    parser.add_argument('--tile', type=int, default=0, metavar='PIXELS', help='restore in tiles, to need less memory')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1 (default: auto)')
    parser.add_argument('--backend', default='auto', choices=('auto', 'torch', 'compile', 'openvino'))
    parser.add_argument('--fp32', action='store_true', help='full precision')
    parser.add_argument('--encoder', help='of ffmpeg, such as libx265 (default: libx264)')
    parser.add_argument('--quality', type=float, help="the encoder's constant quality, lower is better")
    parser.add_argument('--fps', help='frames a second, for a video made of a folder (default: 25)')
    parser.add_argument('--lossless', action='store_true', help='encode without loss')


def run(args: argparse.Namespace) -> None:
    """Restores; raises DBLRError for what cannot be read, restored or written."""
    from dblr_plugin.inference.media import open_sink, open_source
    from dblr_plugin.inference.pipeline import restore_media
    from dblr_plugin.inference.video_restorer import VideoRestorer

    if args.tile < 0:
        raise DBLRError(f'--tile is {args.tile}; give a number of pixels, or 0 for whole frames')
    with open_source(args.input, args.start, args.end, args.scale_down) as source:
        # before the network is built, so that what cannot be written is told at once
        sink = open_sink(
            args.output,
            source,
            encoder=args.encoder,
            quality=args.quality,
            lossless=args.lossless,
            fps=args.fps,
            suffix=args.suffix,
        )
        restorer = VideoRestorer.from_weights(
            args.weights,
            args.opt,
            device=args.device,
            backend=args.backend,
            precision='fp32' if args.fp32 else 'auto',
            tile=args.tile,
            frames=source.count or 1000,
        )
        count = restore_media(restorer, source, sink, args.compare)
    print(f'{args.output}: {count} frames restored')
