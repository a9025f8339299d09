"""Trains networks of several architectures alike for a short time and prints what each gains for its operations.

    python scripts/weights/frontier.py TRAIN_STORE TEST_STORE --cpu-seconds 120 light 'num_feat=[16,32] num_block=[1,4]'

Stores are those of ``dblr prepare motion --y-only``. Every network sees the same samples in the same order until its
processor time is up, in one thread. Gains are means over the test windows, in dB of Y.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)
from dblr_plugin.data.motion import WindowStore
from dblr_plugin.data.synthetic_motion_dataset import SyntheticMotionDataset
from dblr_plugin.data.train_sampler import SampleIndex
from dblr_plugin.training.step import move_average

# isort: split

from basicsr.archs import build_network

GREY = {'num_in_ch': 1, 'num_out_ch': 1}
PRESETS = {
    'light': {'num_feat': [24, 48, 96], 'num_block': [1, 2, 3]},
    'balanced': {'num_feat': [48, 96, 192], 'num_block': [1, 2, 4]},
}
FIGURES = 'gain, all | blurred | worst tenth | sharp, PSNR'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('train')
    parser.add_argument('test')
    parser.add_argument(
        'variants',
        nargs='+',
        help='a preset, or key=value of network_g (a MultiScaleDBLRNet where no type is given), lr, batch, crop, loss',
    )
    parser.add_argument('--cpu-seconds', type=float, default=120)
    parser.add_argument('--test-windows', type=int, default=400)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f'| variant | kMAC/px | samples | samples/s | {FIGURES} |')
    print('|---|---|---|---|---|---|---|---|')
    for text in args.variants:
        run(text, args)


def run(text: str, args: argparse.Namespace) -> None:
    """Trains one variant and prints its row."""
    settings = settings_of(text)
    lr, batch = settings.pop('lr', 0.001), settings.pop('batch', 4)
    crop, loss = settings.pop('crop', 96), settings.pop('loss', 'charbonnier')
    torch.manual_seed(0)
    net = build_network({'type': 'MultiScaleDBLRNet', **GREY, **settings})
    averaged = copy.deepcopy(net)
    macs = operations(net)
    flips = dict.fromkeys(('use_hflip', 'use_rot', 'random_reverse'), True)
    data = SyntheticMotionDataset({'dataroot_gt': args.train, 'gt_size': crop, 'y_only': True, **flips})
    optimizer = torch.optim.Adam(net.parameters(), lr, betas=(0.9, 0.99))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist()
    start, seen = time.process_time(), 0
    while (spent := time.process_time() - start) < args.cpu_seconds:
        for group in optimizer.param_groups:
            done = spent / args.cpu_seconds
            group['lr'] = lr * min(1, (seen + batch) / 400) * (0.5 + 0.5 * math.cos(math.pi * done))
        samples = [data[SampleIndex(order[(seen + i) % len(order)], seen + i)] for i in range(batch)]
        lq, gt = (torch.stack([sample[key] for sample in samples]) for key in ('lq', 'gt'))
        optimizer.zero_grad()
        objective(net(lq), gt, loss).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        seen += batch
        decay = min(0.99, (1 + seen / batch) / (10 + seen / batch))
        move_average(averaged, net, decay)
    figures = scored(averaged, args.test, args.test_windows)
    print(f'| {text} | {macs / 1e3:.1f} | {seen} | {seen / args.cpu_seconds:.1f} | {figures} |', flush=True)


def settings_of(text: str) -> dict[str, Any]:
    """Parses the settings of a variant argument."""
    settings: dict[str, Any] = {}
    for word in text.split():
        key, _, value = word.partition('=')
        settings.update({key: yaml.safe_load(value)} if value else PRESETS[key])
    return settings


def objective(output: Tensor, gt: Tensor, loss: str) -> Tensor:
    """Loss of a batch: ``charbonnier0.03`` (quadratic below that error), ``psnr`` of the batch, or ``mse``."""
    error = (output - gt).square()
    if loss.startswith('charbonnier'):
        return (error + float(loss.removeprefix('charbonnier') or 0.03) ** 2).sqrt().mean()
    if loss == 'psnr':  # of the batch as a whole
        return 10 / math.log(10) * (error.mean() + 1e-6).log() * 1e-3
    return error.mean()


def scored(net: nn.Module, store: str, count: int) -> str:
    """Formats the cells of ``FIGURES`` for the first test windows; the worst tenth is of the blurred ones."""
    gains, sharp = score(net, store, count)
    blurred = gains[sharp.isnan()]
    worst = blurred.sort().values[: len(blurred) // 10].mean()
    sharpness = sharp[~sharp.isnan()].clamp(max=70).mean()
    return f'{gains.mean():+.3f} | {blurred.mean():+.3f} | {worst:+.3f} | {sharpness:.1f}'


@torch.no_grad()
def score(net: nn.Module, store: str, count: int) -> tuple[Tensor, Tensor]:
    """Gains in dB on the first test windows, and the output's PSNR on those that were sharp (else NaN)."""
    data = SyntheticMotionDataset({'dataroot_gt': store, 'gt_size': WindowStore(store).info.size, 'y_only': True})
    gains, sharp = [], []
    for number in range(min(count, len(data))):
        sample = data[SampleIndex(number, 0)]
        before, after = (psnr(frame, sample['gt']) for frame in (sample['lq'][2], net(sample['lq'][None])[0]))
        gains.append(0.0 if before > 90 else after - before)
        sharp.append(after if before > 90 else math.nan)
    return torch.tensor(gains), torch.tensor(sharp)


def psnr(output: Tensor, gt: Tensor) -> float:
    """PSNR in dB, capped at 100."""
    return -10 * math.log10((output - gt).square().mean().item() + 1e-10)


def operations(net: nn.Module) -> float:
    """Multiply-adds per pixel."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 5, 1, 128, 128))
    return counter.get_total_flops() / 2 / 128**2


if __name__ == '__main__':
    main()
