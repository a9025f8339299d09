"""Write a network for other programs: ONNX, or weights in another format.

dblr export --weights net_g_latest.pth -o net.onnx          # checked against PyTorch with onnxruntime
dblr export --weights net_g_latest.pth -o net.safetensors   # or .pth
dblr export --weights light -o light.onnx                   # a name of `dblr weights`
dblr export -o net.onnx --precision int8 --calibrate shaky.mp4

ONNX files take float32 windows (1, frames, channels, height, width) of any size; their metadata say what the channels
are and which frame is restored. The network is recorded in every format.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import dblr_plugin
from dblr_plugin.commands.deblur import add_weights_arguments, check_network_arguments
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import check_writable

if TYPE_CHECKING:
    from torch import Tensor

    from dblr_plugin.restore.loading import LoadedNetwork

__all__ = ['add_arguments', 'run']

_SUFFIXES = ('.onnx', '.safetensors', '.pth')
_ONNX_PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --weights, -opt, -o, --overwrite, --precision, --calibrate and --trained-on."""
    add_weights_arguments(parser)
    parser.add_argument('-o', '--output', required=True, type=Path, metavar='FILE', help='.onnx, .safetensors or .pth')
    parser.add_argument('--overwrite', action='store_true', help='replace an older file')
    precision_help = 'precision of ONNX files (default: fp32)'
    parser.add_argument('--precision', default='fp32', choices=('fp32', 'int8'), help=precision_help)
    calibrate_help = 'video or folder of frames like those to restore, by which int8 is quantised'
    parser.add_argument('--calibrate', metavar='FILE', help=calibrate_help)
    parser.add_argument('--trained-on', metavar='TEXT', help='training data, to be recorded in the file')


def run(args: argparse.Namespace) -> None:
    """Writes the file and prints what it contains; raises DBLRError for what cannot be read or written."""
    _check_output(args)
    check_network_arguments(args)
    dblr_plugin.register_within_work()
    from dblr_plugin.restore.export import OPSET, export_checkpoint, export_onnx
    from dblr_plugin.restore.loading import load_network

    loaded = load_network(args.weights, args.opt)
    if args.output.resolve() == loaded.weights.resolve():
        raise DBLRError(f'{args.output} is the input weights file; give another output')
    if args.trained_on is not None:
        loaded = dataclasses.replace(loaded, trained_on=args.trained_on)
    if args.output.suffix == '.onnx':
        calibration = _calibration(loaded, args.calibrate) if args.precision == 'int8' else []
        for difference in export_onnx(loaded, args.output, calibration):
            print(difference)
        print(f'{args.output}: {loaded}, opset {OPSET}')
    else:
        export_checkpoint(loaded, args.output)
        print(f'{args.output}: {loaded}')


def _check_output(args: argparse.Namespace) -> None:
    """Refuses, before torch is imported, a file that cannot be written or would be replaced; raises DBLRError."""
    path: Path = args.output
    if path.suffix not in _SUFFIXES:
        raise DBLRError(f"{path}: '{path.suffix}' cannot be written; give one of {' '.join(_SUFFIXES)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise DBLRError(f'{path}: is a folder, or its folder does not exist; name a file in an existing one')
    if path.exists() and not args.overwrite:
        raise DBLRError(f'{path} exists; give another output, or --overwrite')
    if args.precision == 'int8' and (path.suffix != '.onnx' or not args.calibrate):
        raise DBLRError('--precision int8 is for .onnx files, and needs --calibrate with a video or a folder of frames')
    if args.calibrate and args.precision != 'int8':
        raise DBLRError('--calibrate is for --precision int8; give that too, or leave --calibrate out')
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if path.suffix == '.onnx' and missing:
        raise DBLRError(f"{path}: ONNX needs {', '.join(missing)}: pip install 'dblr_plugin[export]'")
    check_writable(path)


def _calibration(loaded: LoadedNetwork, path: str) -> list[Tensor]:
    """Returns network inputs cropped from all over a video or folder."""
    from dblr_plugin.restore.openvino_forward import cut_crops
    from dblr_plugin.restore.pipeline import sample_windows
    from dblr_plugin.restore.video_restorer import VideoRestorer
    from dblr_plugin.video import open_source

    settings = {'backend': 'torch', 'precision': 'fp32', 'size_multiple': loaded.pad_multiple}
    restorer = VideoRestorer(loaded.net, loaded.options, 'cpu', **settings)
    with open_source(path) as source:
        windows = map(restorer.window, sample_windows(path, source, restorer.traits.num_frame))
        return list(cut_crops(map(restorer.restorer.padded, windows)))
