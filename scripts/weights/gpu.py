"""Trains the presets on a GPU that is lent for half an hour: windows are made there, on the fly, in large batches.

    python scripts/weights/gpu.py pack datasets/weights/pictures/train packed_pictures       # here: under 40 MB
    python scripts/weights/gpu.py train packed_pictures OUT --minutes 12 --preset light      # there
    python scripts/weights/gpu.py train packed_pictures OUT --minutes 12 --preset balanced

The second needs torch, torchvision and NumPy and nothing else (PyAV too where there is no GPU): of this package it
loads the networks and what makes windows. OUT gets ``<preset>.pth``, whose ``params_ema`` the option files take up as
``path.pretrain_network_g``, and a line of progress a minute. bf16 on GPUs; without one (``--toy`` is a quick trial)
float32.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 1280  # pixels of a packed picture
PRESETS = {
    'light': {'num_feat': [24, 48, 96], 'num_block': [1, 2, 3]},
    'balanced': {'num_feat': [48, 96, 192], 'num_block': [1, 2, 3]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    packing = kinds.add_parser('pack')
    packing.add_argument('pictures', type=Path)
    packing.add_argument('dst', type=Path)
    packing.set_defaults(run=pack)
    training = kinds.add_parser('train')
    training.add_argument('pictures', type=Path)
    training.add_argument('out', type=Path)
    training.add_argument('--preset', choices=PRESETS, default='light')
    training.add_argument('--minutes', type=float, default=12)
    training.add_argument('--batch', type=int, default=64)
    training.add_argument('--start', type=Path, help='weights to begin with')
    training.add_argument('--toy', action='store_true', help='small windows and batches')
    training.set_defaults(run=train)
    args = parser.parse_args()
    args.run(args)


def pack(args: argparse.Namespace) -> None:
    """Writes the pictures as grey JPEG files of moderate size."""
    import cv2

    args.dst.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.pictures.iterdir()):
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        factor = min(1, LONGEST / max(picture.shape))
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(args.dst / f'{path.stem}.jpg'), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])


def train(args: argparse.Namespace) -> None:
    """Trains one preset for some minutes, the rate following a cosine of the time."""
    MultiScaleDBLRNet, MotionWindows, SharpPictures = load_package()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    size, batch = (32, 2) if args.toy else (128, args.batch)
    # an exposure's picture must be four times as large as the window
    pictures = SharpPictures(*read_packed(args.pictures, 4 * size))
    windows = MotionWindows(pictures, size, device=device)
    net = MultiScaleDBLRNet(**PRESETS[args.preset]).to(device)
    if args.start:
        net.load_state_dict(torch.load(args.start, map_location=device, weights_only=True)['params_ema'])
    averaged = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, betas=(0.9, 0.99))
    start = told = time.monotonic()
    seen = step = 0
    losses: list[float] = []
    while (done := (time.monotonic() - start) / (60 * args.minutes)) < 1:
        for group in optimizer.param_groups:
            group['lr'] = 1e-3 * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * done))
        lq, gt = batch_of(windows, batch, step)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == 'cuda'):
            output = net(lq).float()
        loss = ((output - gt).square() + 9e-4).sqrt().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        update_average(averaged, net, min(0.999, (1 + step) / (10 + step)))
        step, seen = step + 1, seen + batch
        losses.append(loss.detach())
        if time.monotonic() - told > 60 or step == 1:
            told = time.monotonic()
            mean, losses = float(torch.stack(losses).mean()), []
            print(f'{told - start:.0f} s, {seen} samples, loss {mean:.5f}', flush=True)
            save(args, net, averaged, seen)
    save(args, net, averaged, seen)
    print(f'{args.preset}: {seen} samples in {args.minutes:g} minutes on {device}')


def load_package() -> tuple[type, type, type]:
    """The network and the maker of windows, without BasicSR, whose registry is stood in for."""
    registry = types.ModuleType('basicsr.utils.registry')
    registry.ARCH_REGISTRY = types.SimpleNamespace(register=lambda: lambda cls: cls)
    sys.modules.update({name: types.ModuleType(name) for name in ('basicsr', 'basicsr.utils')})
    sys.modules['basicsr.utils.registry'] = registry
    for name in ('dblr_plugin', 'dblr_plugin.archs', 'dblr_plugin.data', 'dblr_plugin.data.motion'):
        package = types.ModuleType(name)
        package.__path__ = [str(ROOT / name.replace('.', '/'))]
        sys.modules[name] = package
    from dblr_plugin.archs.multi_scale_dblrnet_arch import MultiScaleDBLRNet
    from dblr_plugin.data.motion.pictures import SharpPictures
    from dblr_plugin.data.motion.windows import MotionWindows

    return MultiScaleDBLRNet, MotionWindows, SharpPictures


def read_packed(folder: Path, least: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and pixels, uint8 (h, w, 1), of the packed pictures that are large enough."""
    from torchvision.io import ImageReadMode, read_image

    names, pictures = [], []
    for path in sorted(folder.glob('*.jpg')):
        picture = read_image(str(path), ImageReadMode.GRAY).permute(1, 2, 0).numpy()
        if min(picture.shape[:2]) >= least:
            names.append(path.name)
            pictures.append(picture)
    return names, pictures


def batch_of(windows: object, batch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of several kinds of motion, as BasicSR's Y in [16/255, 235/255]."""
    parts = [windows.draw(max(1, batch // 8), step * 8 + part) for part in range(min(8, batch))]
    lq, gt = (torch.cat(part).float() * (219 / 255**2) + 16 / 255 for part in zip(*parts, strict=True))
    return lq, gt


@torch.no_grad()
def update_average(averaged: torch.nn.Module, net: torch.nn.Module, decay: float) -> None:
    """Moves the averaged weights towards the trained ones."""
    torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 1 - decay)


def save(args: argparse.Namespace, net: torch.nn.Module, averaged: torch.nn.Module, seen: int) -> None:
    """Writes both sets of weights, whole or not at all."""
    args.out.mkdir(parents=True, exist_ok=True)
    nets = {'params': net, 'params_ema': averaged}
    weights = {key: {k: v.cpu() for k, v in net.state_dict().items()} for key, net in nets.items()}
    network = {'type': 'MultiScaleDBLRNet', 'num_in_ch': 1, 'num_out_ch': 1, 'num_frame': 5, **PRESETS[args.preset]}
    path = args.out / f'{args.preset}.pth'
    torch.save({**weights, 'network': network, 'samples': seen}, path.with_suffix('.partial'))
    path.with_suffix('.partial').replace(path)


if __name__ == '__main__':
    main()
