"""What a frame costs on this machine with the networks of this package, and with those that could be run instead.

Each network runs in the fastest ways available for it, all in every round (:mod:`dblr_plugin.benchmark.timing`). Frames
per second are given for 1280x720, whatever size was measured: all of these networks do the same for every pixel. Only
the shipped weights are trained; for the others, the distance of int8 from fp32 says nothing about real use.
"""

from __future__ import annotations

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)

# isort: split

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from basicsr.archs import build_network
from common import arguments, run, without_messages
from inference import BASELINE, make_forward, make_window, operations, parse_size, psnr_between
from limits import best_device
from peer_networks import DMPHN, NAFNet, QuarterBasicVSR
from torch import Tensor, nn

from dblr_plugin.benchmark.record import describe_device
from dblr_plugin.benchmark.timing import MEMORY, Variant, figures, peak_memory, run_rounds, waited_for
from dblr_plugin.colour import to_network_colour
from dblr_plugin.restore.backends import choose
from dblr_plugin.restore.loading import load_network
from dblr_plugin.restore.mnn_forward import mnn_installed
from dblr_plugin.restore.openvino_forward import nncf_installed

_PIXELS = 1280 * 720
METHOD = {
    'order': 'all ways of all networks in every round, the first round not counted',
    'figure': 'median over rounds, in milliseconds per run, which restores one frame unless stated otherwise',
    'decibels': 'PSNR, peak 1, of the output against that of eager fp32',
    'operations': 'multiply-adds of convolutions and matrix products',
    'peak': MEMORY,
}


@dataclass(frozen=True)
class Network:
    """A network to time.

    Attributes:
        build: Builds the network.
        num_in_ch: 1 for Y, 3 for RGB.
        window: Whether it takes five frames or only the middle one.
        int8: Whether OpenVINO can run it in int8.
        openvino: Whether OpenVINO can run it at all; BasicSR's SpyNet computes sizes that it would keep as constants.
        mnn: Whether MNN can run it; not deformable convolutions.
        restored: Number of the five frames that a run restores.
    """

    build: Callable[[], nn.Module]
    num_in_ch: int = 3
    window: bool = True
    int8: bool = False
    openvino: bool = True
    mnn: bool = True
    restored: int = 1

    def input(self, window: Tensor) -> Tensor:
        """Returns its input, made from RGB ``(1, 5, 3, h, w)``."""
        frames = to_network_colour(window, self.num_in_ch).contiguous()
        return frames if self.window else frames[:, frames.shape[1] // 2]


def _shipped(name: str) -> nn.Module:
    return load_network(name).net


def _named(**options: object) -> nn.Module:
    return build_network(options)


NETWORKS = {
    'light, the shipped weights': Network(partial(_shipped, 'light'), 1, int8=True),
    'balanced': Network(partial(_shipped, 'balanced'), 1, int8=True),
    'DBLRNet, the paper': Network(partial(_named, type='DBLRNet', input_skip=True), 1, int8=True),
    'DBN': Network(partial(_named, type='DBN')),
    'EDVR-M': Network(
        partial(
            _named,
            type='EDVR',
            num_feat=64,
            num_extract_block=5,
            num_reconstruct_block=10,
            hr_in=True,
            with_predeblur=True,
        ),
        mnn=False,
    ),
    'BasicVSR, on quarter-size frames, five at once': Network(QuarterBasicVSR, openvino=False, mnn=False, restored=5),
    'NAFNet-32': Network(NAFNet, window=False),
    'DMPHN': Network(DMPHN, window=False),
}


def measure(window: Tensor, seconds: float, names: list[str]) -> dict:
    """Measures networks and returns the report, except its origin (docs/speed/schema.json).

    Args:
        window: RGB ``(1, 5, 3, h, w)`` in [0, 1].
        seconds: Time to measure for.
        names: Keys of ``NETWORKS``.
    """
    device = best_device()
    pixels = window.shape[-2] * window.shape[-1]
    inputs = {name: NETWORKS[name].input(window).to(device) for name in names}
    with without_messages():
        ways = {name: _ways(name, inputs[name], device) for name in names}
        run_rounds([way for some in ways.values() for way in some.values()], seconds)
    networks = {}
    for name, steps in ways.items():
        found = figures(steps)
        for step, way in found.items():
            way['decibels'] = psnr_between(steps[step].result, steps[BASELINE].result)
            way['peak_bytes'] = peak_memory(partial(_frame_maker, name, step, inputs[name].shape, device), device)
            way['frames_720p'] = 1000 / way['median_ms'] * NETWORKS[name].restored * pixels / _PIXELS
        kmacs = operations(_built(name), inputs[name].cpu()) / 2 / pixels / NETWORKS[name].restored / 1000
        networks[name] = {'kmacs': kmacs, 'ways': found}
    return {
        'size': list(window.shape[-2:]),
        'device': describe_device(device),
        'threads': torch.get_num_threads(),
        'networks': networks,
    }


def _built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name].build().eval()


def _ways(name: str, net_input: Tensor, device: torch.device) -> dict[str, Variant]:
    network = NETWORKS[name]
    if device.type == 'cuda':
        steps = [BASELINE, 'torch bf16', *['compile bf16'] * network.int8]
    else:
        bf16_is_fast = choose(device, 'openvino', 'auto')[1] == 'bf16'
        steps = [BASELINE, *['openvino fp32'] * network.openvino]
        steps += ['openvino bf16'] * (network.openvino and bf16_is_fast)
        steps += ['openvino int8'] * (network.int8 and nncf_installed())
        steps += ['mnn fp32'] * (network.mnn and mnn_installed())
    net = _built(name)
    return {
        step: Variant(step, waited_for(partial(make_forward(net, step, device), net_input), device), BASELINE)
        for step in steps
    }


def _frame_maker(name: str, step: str, shape: torch.Size, device: torch.device) -> partial[Tensor]:
    return partial(make_forward(_built(name), step, device), torch.rand(shape, device=device))


def _report(args: argparse.Namespace) -> dict:
    origin, window = make_window(args.input, args.size)
    return {'origin': origin, **measure(window, args.seconds, args.only or list(NETWORKS))}


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the given arguments, by default those of the command line."""
    parser = arguments(__doc__, seconds=60)
    parser.add_argument('--input', type=Path, metavar='FRAMES', help='folder of at least 5 frames, or a video')
    parser.add_argument(
        '--size', type=parse_size, default=(320, 176), metavar='WIDTHxHEIGHT', help='(default: 320x176)'
    )
    parser.add_argument('--only', nargs='+', choices=list(NETWORKS), metavar='NETWORK', help='; '.join(NETWORKS))
    run('peers', parser.parse_args(argv), METHOD, _report)


if __name__ == '__main__':
    main()
