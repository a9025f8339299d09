"""How fast networks restore frames on this machine, step by step from plain PyTorch to what ``dblr deblur`` does.

All steps of all networks and the machine's limits are measured in every round, see :mod:`dblr_plugin.benchmark.timing`.
Weights are random, which does not affect timing; the last layer of DBLRNet is fitted to the frame, so that precisions
differ as much as in a trained network.
"""

from __future__ import annotations

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)

# isort: split

import argparse
import copy
import re
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from basicsr.archs import build_network
from basicsr.archs.edvr_arch import EDVR
from common import arguments, run
from end_to_end import DBLR, measure_video
from frames import generate_sample
from limits import METHOD as LIMITS
from limits import best_device, limit_figures, limit_ways, share_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dblr_plugin.acceleration import fold
from dblr_plugin.archs import DBLRNet
from dblr_plugin.benchmark.record import describe_device
from dblr_plugin.benchmark.timing import MEMORY, Variant, figures, peak_memory, run_rounds, waited_for
from dblr_plugin.colour import to_network_colour
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.restore.backends import Forward, build_forward, choose, openvino_installed
from dblr_plugin.restore.mnn_forward import mnn_installed
from dblr_plugin.video import open_source

WINDOW = 5
MULTIPLE = 16  # required by EDVR
RIDGE = 0.1  # of the mean diagonal
PAPER, EDVR_M, DBN = 'DBLRNet (the paper)', 'EDVR-M', 'DBN'
BASELINE = 'eager fp32'
METHOD = {
    'window': WINDOW,
    'weights': 'random; the last layer of DBLRNet fitted, so that it gives the middle frame',
    'order': 'all steps in every round, the first round not counted',
    'figure': 'median over rounds, in milliseconds per frame',
    'decibels': 'PSNR, peak 1, of the output against that of eager fp32',
    'operations': 'of convolutions and matrix products, two for a multiplication with addition',
    'peak': MEMORY,
    'video': 'file to file, with a causal DBLRNet; compiling not counted',
    'latency': 'of dblr deblur on that video, for a frame, from decoded to restored',
    **LIMITS,
}


def make_window(frames: Path | None, size: tuple[int, int]) -> tuple[str, Tensor]:
    """Reads five frames, or generates them.

    Args:
        frames: Folder of at least five frames, or a video, of which the first five are taken; None to generate them.
        size: Width and height of the centre crop in pixels, rounded down to multiples of 16.

    Returns:
        The origin of the frames, and RGB ``(1, 5, 3, h, w)`` in [0, 1].

    Raises:
        DBLRError: There are fewer frames, they are smaller than 16x16, or they cannot be read.
    """
    if frames is not None:
        return str(frames), _window(frames, size)
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        sample = generate_sample(Path(folder), '.png', WINDOW)
        return sample.origin, _window(sample.lq / '000', size)


def _window(path: Path, size: tuple[int, int]) -> Tensor:
    with open_source(path) as source:
        frames = [frame.pixels for frame in islice(source, WINDOW)]
    if len(frames) < WINDOW:
        raise DBLRError(f'{path} has {counted(len(frames), "frame")}; {WINDOW} are needed')
    pixels = np.stack(frames)
    h, w = (min(have, want) // MULTIPLE * MULTIPLE for have, want in zip(pixels.shape[1:3], size[::-1], strict=True))
    if not h * w:
        raise DBLRError(f'frames and size must be at least {MULTIPLE}x{MULTIPLE}')
    top, left = (pixels.shape[1] - h) // 2, (pixels.shape[2] - w) // 2
    crop = pixels[:, top : top + h, left : left + w].astype(np.float32) / np.iinfo(pixels.dtype).max
    return torch.from_numpy(crop).permute(0, 3, 1, 2).unsqueeze(0).contiguous()


def measure(window: Tensor, seconds: float, full: bool = False) -> dict:
    """Measures all networks and steps available on this machine.

    Args:
        window: RGB ``(1, 5, 3, h, w)`` in [0, 1].
        seconds: Time to measure for.
        full: Also compiles EDVR and fp32, which takes minutes and gained nothing on the machines measured so far.

    Returns:
        The report, except its origin; docs/speed/schema.json explains it. ``auto`` is what would be chosen.
    """
    device = best_device()
    video = measure_video(_paper, window, seconds / 2, device)  # first, before anything else holds threads and memory
    inputs = {name: to_network_colour(window, channels).contiguous() for name, channels in _CHANNELS.items()}
    ways = {name: _ways(name, window, inputs[name].to(device), full) for name in inputs}
    limiting = limit_ways(device)
    run_rounds([way for some in (*ways.values(), limiting) for way in some.values()], seconds)
    limits = limit_figures(limiting)
    networks = {}
    for name, steps in ways.items():
        gflop, found = operations(_build(name), inputs[name]) / 1e9, figures(steps)
        for step, way in found.items():
            way |= share_of(gflop, way['median_ms'], limits, step.split()[1])
            way['decibels'] = psnr_between(steps[step].result, steps[BASELINE].result)
            way['peak_bytes'] = peak_memory(partial(_frame_maker, name, step, inputs[name].shape, device), device)
        networks[name] = {'gflop': gflop, 'ways': found}
    backend, precision = choose(device, 'auto', 'auto', frames=1000)
    for name, way in video['ways'].items():
        gflop = networks[PAPER]['gflop'] * video['frames']
        way |= share_of(gflop, way['median_ms'], limits, precision if name == DBLR else 'fp32')
    return {
        'size': list(window.shape[-2:]),
        'device': describe_device(device),
        'threads': torch.get_num_threads(),
        'auto': f'{backend} {precision}',
        'limits': limits,
        'networks': networks,
        'video': video,
    }


_CHANNELS = {PAPER: 1, EDVR_M: 3, DBN: 3}


def _build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return {PAPER: _paper, EDVR_M: _edvr, DBN: _dbn}[name]().eval()


def _paper(causal: bool = False) -> DBLRNet:
    return DBLRNet(causal=causal)


def _edvr() -> EDVR:
    """Builds BasicSR's EDVR as published for deblurring, but as narrow as DBLRNet."""
    return EDVR(num_feat=64, num_extract_block=5, num_reconstruct_block=10, hr_in=True, with_predeblur=True)


def _dbn() -> nn.Module:
    return build_network({'type': 'DBN'})


@torch.no_grad()
def _fitted(net: DBLRNet, window: Tensor) -> DBLRNet:
    """Fits the last layer of a DBLRNet without skip by ridge regression, so that it returns the middle frame.

    Its bf16 output differs from fp32 by 56 dB, that of a briefly trained network by 60 dB, and that of random weights
    scaled to the contrast of a frame by 35 to 49 dB: they amplify differences more than any trained network.
    """
    window = to_network_colour(window, 1)[..., :96, :96]
    last, caught = net.reconstruction[-1], []
    hook = last.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    net(window)
    hook.remove()
    features = nn.functional.unfold(caught[0], 3, padding=1)[0].T  # (pixels, weights)
    target = window[0, WINDOW // 2].flatten()
    means = features.mean(dim=0), target.mean()
    features, target = features - means[0], target - means[1]
    products = features.T @ features
    ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products))
    weight = torch.linalg.solve(products + ridge, features.T @ target)
    last.weight.copy_(weight.view_as(last.weight))
    last.bias.copy_(means[1] - means[0] @ weight)
    return net


def _ways(name: str, window: Tensor, net_input: Tensor, full: bool) -> dict[str, Variant]:
    """Returns all steps of a network on its input, which is made from the window."""
    net = _build(name)
    if name == PAPER:
        _fitted(net, window)
    device = net_input.device
    return {
        step: Variant(step, waited_for(partial(make_forward(net, step, device), net_input), device), BASELINE)
        for step in _step_names(device, name == PAPER or full, full)
    }


def _step_names(device: torch.device, compiles: bool, full: bool) -> list[str]:
    """Returns all steps available on this machine, the plain one first."""
    names = [BASELINE, 'folded fp32', 'torch fp32', 'torch bf16']
    names += ['compile fp32'] * full + ['compile bf16'] * compiles
    if device.type == 'cuda':
        return [*names, 'torch fp16']
    return names + ['openvino fp32', 'openvino bf16'] * openvino_installed() + ['mnn fp32'] * mnn_installed()


def make_forward(net: nn.Module, step: str, device: torch.device) -> Forward:
    """Returns a function that runs a copy of a network in a step such as ``openvino bf16``."""
    backend, precision = step.split()
    if backend in ('eager', 'folded'):
        return torch.no_grad()((fold(net) if backend == 'folded' else copy.deepcopy(net)).to(device))
    return build_forward(net, device, backend, precision)


def operations(net: nn.Module, window: Tensor) -> int:
    """Floating-point operations for an input ``(..., h, w)``, scaled up from a small crop: all pixels cost the same."""
    piece = window[..., :256, :256]  # SpyNet needs as much
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(piece)
    return counter.get_total_flops() * window.shape[-2:].numel() // piece.shape[-2:].numel()


def psnr_between(output: Tensor, baseline: Tensor) -> float | None:
    """PSNR with peak 1; None for equality."""
    error = (output - baseline).double().square().mean()
    return -10 * torch.log10(error).item() if error else None


def _frame_maker(network: str, step: str, shape: torch.Size, device: torch.device) -> partial[Tensor]:
    """Returns a function that restores a frame of noise."""
    return partial(make_forward(_build(network), step, device), torch.rand(shape, device=device))


def _report(args: argparse.Namespace) -> dict:
    size = (1280, 720) if args.full else args.size
    origin, window = make_window(args.input, size)
    return {'origin': origin, **measure(window, args.seconds, args.full)}


def parse_size(text: str) -> tuple[int, int]:
    """Parses width and height from a text such as ``1280x720``; argparse reports errors."""
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 1280x720")
    return int(match[1]), int(match[2])


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the given arguments, by default those of the command line."""
    parser = arguments(__doc__, seconds=60)
    parser.add_argument('--input', type=Path, metavar='FRAMES', help='folder of at least 5 frames, or a video')
    size_help = "of the frames' middle (default: 320x176, a few minutes on two cores)"
    parser.add_argument('--size', type=parse_size, default=(320, 176), metavar='WIDTHxHEIGHT', help=size_help)
    parser.add_argument('--full', action='store_true', help='1280x720, and everything compiled: takes long')
    run('inference', parser.parse_args(argv), METHOD, _report)


if __name__ == '__main__':
    main()
