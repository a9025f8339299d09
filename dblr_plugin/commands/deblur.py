"""Restore videos, folders of frames, or an image.

dblr deblur -i shaky.mp4 -o sharp.mp4                               # with the default weights
dblr deblur -i shaky.mp4 -o sharp.mp4 --resume                      # continues where it was stopped or killed
dblr deblur -i films/ -o restored/                                  # all videos below; or -i 'films/*.mkv'
dblr deblur -i shaky.mp4 -o sharp.mp4 --weights light               # faster on a CPU, half the gain: `dblr weights`
dblr deblur -i frames/ -o restored/ --weights net_g_latest.pth      # or -i 'frames/*.png'

Every input frame becomes one output frame; sound, subtitles, frame times, colour and bit depth are kept. No window
spans a cut. Weights trained with dblr_plugin record their network; for others give their option file, -opt.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dblr_plugin
from dblr_plugin.console import printable, show_log
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.files import sha256_of

if TYPE_CHECKING:
    from dblr_plugin.restore.video_restorer import VideoRestorer
    from dblr_plugin.video import Source

__all__ = ['add_arguments', 'add_network_arguments', 'build_restorer', 'check_network_arguments', 'run']

#: Assumed if the number of frames is unknown: enough to justify slow preparation.
MANY_FRAMES = 1000
# arguments that determine the output, besides the weights; the device changes no more than the last bit
_SETTINGS = ('start', 'end', 'scale_down', 'compare', 'precision', 'self_ensemble', 'encoder', 'quality', 'preset',
             'lossless', 'fps', 'suffix')  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments, named as in BasicSR's inference scripts."""
    parser.add_argument('-i', '--input', required=True, help='video, folder of videos or of frames, glob, or image')
    parser.add_argument('-o', '--output', required=True, help='video file, or folder for frames or several videos')
    add_network_arguments(parser)
    older = parser.add_mutually_exclusive_group()
    older.add_argument('--overwrite', action='store_true', help='replace existing outputs')
    older.add_argument('--resume', action='store_true', help='continue an output that was interrupted')
    parser.add_argument('--suffix', default='', help='added to the names of frames, or of several videos')
    parser.add_argument('--start', metavar='TIME', help='where to start: seconds or h:mm:ss; frame number in folders')
    parser.add_argument('--end', metavar='TIME', help='where to end')
    scale_help = 'reduce the frame size N times, for trials'
    parser.add_argument('--scale-down', type=float, default=1, metavar='N', help=scale_help)
    compare_help = 'show the input beside (default) or above the restored frames'
    parser.add_argument('--compare', nargs='?', const='beside', choices=('beside', 'stacked'), help=compare_help)
    parser.add_argument('--causal', action='store_true', help='use no later frames (default weights: light-causal)')
    parser.add_argument('--encoder', help='an FFmpeg encoder, such as libx265 (default: libx264)')
    parser.add_argument('--quality', type=float, help="the encoder's constant quality, lower is better")
    presets = 'ultrafast to placebo for libx264 and libx265; slower ones make smaller files (default: medium)'
    parser.add_argument('--preset', help=f'speed of the encoder: {presets}')
    parser.add_argument('--fps', help='frames per second of a video made from a folder (default: 25)')
    parser.add_argument('--lossless', action='store_true', help='lossless encoding')


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of :func:`build_restorer`."""
    add_weights_arguments(parser)
    ensemble_help = 'average four flips of each frame: 0.1 dB better with balanced, in four times the time'
    parser.add_argument('--self-ensemble', action='store_true', help=ensemble_help)
    tile_help = (
        'tile size in pixels; smaller tiles need less memory (default: whole frames, but 640 or 1280 for large ones on '
        'CPUs)'
    )
    parser.add_argument('--tile', type=int, default=0, metavar='PIXELS', help=tile_help)
    parser.add_argument(
        '--device', default='auto', help='auto, cpu, cuda, cuda:1, mps, openvino:GPU, openvino:NPU (default: auto)'
    )
    backends = ('auto', 'torch', 'compile', 'openvino', 'mnn')
    backend_help = 'what runs the network (default: auto, the fastest that is installed)'
    parser.add_argument('--backend', default='auto', choices=backends, help=backend_help)
    precision_help = 'int8 is fastest on processors with VNNI or AMX (default: auto, the fastest that is close to fp32)'
    precisions = ('auto', 'fp32', 'bf16', 'fp16', 'int8')
    parser.add_argument('--precision', default='auto', choices=precisions, help=precision_help)
    parser.add_argument(
        '--fp32', dest='precision', action='store_const', const='fp32', help='old name of --precision fp32'
    )


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that select a network's weights."""
    weights_help = (
        'a name that `dblr weights` lists, or a file, .pth or .safetensors (default: balanced; '
        'on a CPU light is three times as fast)'
    )
    parser.add_argument('--weights', metavar='NAME', help=weights_help)
    parser.add_argument('-opt', type=Path, metavar='FILE', help='option file that the weights were trained with')


def check_network_arguments(args: argparse.Namespace) -> None:
    """Refuses missing weights and option files before torch is imported; raises DBLRError."""
    from dblr_plugin.weights.shipped import find_weights
    from dblr_plugin.yaml_file import read_option_file

    find_weights(args.weights)
    if args.opt is not None:
        read_option_file(args.opt)


def build_restorer(args: argparse.Namespace, frames: int) -> VideoRestorer:
    """Builds the requested network for a number of frames; raises DBLRError if that fails."""
    dblr_plugin.register_within_work()
    from dblr_plugin.restore.frame_restorer import SMALLEST_TILE
    from dblr_plugin.restore.loading import load_network
    from dblr_plugin.restore.video_restorer import VideoRestorer

    if args.tile and args.tile < SMALLEST_TILE:
        raise DBLRError(f'--tile is {args.tile}; give {SMALLEST_TILE} pixels or more, or 0 for the default')
    loaded = load_network(args.weights, args.opt)
    print(f'weights: {loaded}')
    show_log()  # says which precision is used, and why
    return VideoRestorer(
        loaded.net,
        loaded.options,
        size_multiple=loaded.pad_multiple,
        device=args.device,
        backend=args.backend,
        precision=args.precision,
        tile=args.tile,
        frames=frames,
        self_ensemble=args.self_ensemble,
    )


def run(args: argparse.Namespace) -> None:
    """Restores the input; raises DBLRError for what cannot be read, restored or written."""
    from dblr_plugin.video import find_batch

    for name in ('input', 'output'):
        if not getattr(args, name):  # an empty shell variable, which would mean the current folder
            raise DBLRError(f'--{name} is empty; name a file or a folder')
    if args.causal and args.weights is None:
        args.weights = 'light-causal'
    check_network_arguments(args)
    _end_like_ctrl_c()
    batch = find_batch(args.input, args.output, args.suffix)
    # not the first video's count: a resumed batch must run with the same settings as before
    job = _Job(args, None if batch is None else MANY_FRAMES)
    if batch is None:
        job.restore(args.input, args.output, args.suffix, 'resume' if args.resume else 'refuse')
    else:
        _restore_all(job, batch)


class _Job:
    """Restores any number of inputs with one network."""

    def __init__(self, args: argparse.Namespace, frames: int | None) -> None:
        from dblr_plugin.video import EncoderSettings

        self.args = args
        self.frames = frames  # about how many are to be restored; None for those of the first input
        self.encoder = EncoderSettings(args.encoder, args.quality, args.lossless, args.preset)
        self.restorer: VideoRestorer | None = None

    def restore(self, path: str | Path, output: str | Path, suffix: str, existing: Literal['refuse', 'resume']) -> None:
        """Restores an input unless its output is complete; replaces existing output if the arguments say so."""
        import numpy as np

        from dblr_plugin.video import AlreadyComplete, open_sink, open_source

        args = self.args
        with open_source(path, args.start, args.end, args.scale_down) as source:
            # before BasicSR is imported and the network built, so that an unwritable output fails at once
            try:
                sink = open_sink(
                    output,
                    source,
                    encoder=self.encoder,
                    fps=args.fps,
                    suffix=suffix,
                    existing='replace' if args.overwrite else existing,
                    settings=self._settings(source),
                )
            except AlreadyComplete as complete:
                print(printable(str(complete)))
                return
            try:
                restorer = self._network(path, source)
            except BaseException:
                sink.abandon()
                raise
            if sink.done:
                print(printable(f'{output}: resuming after {counted(sink.done, "frame")}'))
            from dblr_plugin.restore.backends import is_out_of_memory
            from dblr_plugin.restore.pipeline import restore_media

            try:
                seconds = restore_media(restorer, source, sink, args.compare, done=sink.done)
            except Exception as error:
                if is_out_of_memory(error):  # though tiles have become as small as they can
                    raise DBLRError(
                        f'{path}: the memory is full; close other programs, or give a smaller network (--weights '
                        'light), smaller frames (--scale-down 2) or another --device'
                    ) from error
                raise
        before = f', {sink.done} of them in an earlier run' if sink.done else ''
        frames = counted(sink.done + len(seconds), 'frame')
        print(printable(f'{output}: {frames} restored{before}; in: {source.extent()}; out: {sink.extent()}'))
        if restorer.traits.causal and seconds:
            half, most = np.percentile(seconds, (50, 95)) * 1000
            print(f'latency, from decoded to restored: {half:.1f} ms median, {most:.1f} ms 95th percentile')

    def _network(self, path: str | Path, source: Source) -> VideoRestorer:
        args = self.args
        if self.restorer is None:
            self.restorer = build_restorer(args, self.frames or source.count or MANY_FRAMES)
            from dblr_plugin.acceleration import keep_freed_memory

            keep_freed_memory()
        if args.causal and not self.restorer.traits.causal:
            raise DBLRError(
                '--causal needs a network trained with network_g.causal: true, which that of --weights is not; leave '
                '--weights out to use light-causal'
            )
        from dblr_plugin.restore.pipeline import calibrate

        calibrate(self.restorer, path, source, args.start, args.end, args.scale_down)
        return self.restorer

    def _settings(self, source: Source) -> dict[str, Any]:
        """Settings that must be unchanged to resume an output."""
        from dblr_plugin.video import fingerprint
        from dblr_plugin.weights.shipped import find_weights

        settings = {name: getattr(self.args, name) for name in _SETTINGS}
        settings['weights'] = sha256_of(find_weights(self.args.weights))
        settings['opt'] = None if self.args.opt is None else sha256_of(self.args.opt)
        return settings | {'input': fingerprint(source)}


def _restore_all(job: _Job, batch: list[tuple[Path, Path]]) -> None:
    """Restores videos one after the other; raises DBLRError at the end, with a line for each that failed."""
    from dblr_plugin.console import explain

    faults = []
    for path, output in batch:
        try:
            job.restore(path, output, '', 'resume')
        except Exception as error:
            reason = str(error) if isinstance(error, DBLRError) else explain(error)
            if reason is None:
                raise
            faults.append(reason if str(path) in reason else f'{path}: {reason}')
            print(f'{printable(faults[-1])}; continuing with the next one')
    if faults:
        of = f'{len(faults)} of {counted(len(batch), "video")}'
        raise DBLRError('\n  '.join([f'{of} could not be restored:', *faults]))


def _end_like_ctrl_c() -> None:
    """Treats SIGTERM and SIGHUP (job queue, closed terminal) like Ctrl-C, so that the output stays playable."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
