"""Write a network for other programs: ONNX, or weights in another format.

dblr export --weights net_g_latest.pth -o net.onnx          # checked against PyTorch with onnxruntime
dblr export --weights net_g_latest.pth -o net.safetensors   # or .pth

ONNX files take float32 windows (1, frames, channels, height, width) of any size; their metadata say what the channels
are and which frame is restored. Weights say of which network they are, in every format.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from dblr_plugin.errors import DBLRError

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--weights, -o, -opt and --trained-on."""
    parser.add_argument('--weights', type=Path, metavar='FILE', help='.pth or .safetensors (default: those shipped)')
    parser.add_argument('-o', '--output', required=True, type=Path, metavar='FILE', help='.onnx, .safetensors or .pth')
    parser.add_argument('-opt', type=Path, metavar='FILE', help='option file that the weights were trained with')
    parser.add_argument('--trained-on', metavar='TEXT', help='says in the file what the weights were trained on')


def run(args: argparse.Namespace) -> None:
    """Writes and tells what was; raises DBLRError for what cannot be read or written."""
    from dblr_plugin.restore.export import OPSET, check_output, export_checkpoint, export_onnx
    from dblr_plugin.restore.loading import load_network

    check_output(args.output)
    loaded = load_network(args.weights, args.opt)
    if args.output.resolve() == loaded.weights.resolve():
        raise DBLRError(f'{args.output}: is the file of the weights; name another one')
    if args.trained_on is not None:
        loaded = dataclasses.replace(loaded, trained_on=args.trained_on)
    if args.output.suffix == '.onnx':
        for difference in export_onnx(loaded, args.output):
            print(difference)
        print(f'{args.output}: {loaded}, opset {OPSET}')
    else:
        export_checkpoint(loaded, args.output)
        print(f'{args.output}: {loaded}')
