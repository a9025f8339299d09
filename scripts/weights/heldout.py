"""Scores weights on held-out clips: what each gains on two kinds of blur, and loses on sharp frames.

    python scripts/weights/heldout.py datasets/weights unsharp fourier light experiments/light/models/net_g_latest.pth

Protocol: PSNR in dB of RGB, uint8, all frames, mean of each clip (``basicsr``). Videos: clips.tsv; blur: heldout.sh.
With ``--lpips``, LPIPS instead (docs/evaluation.md says where its weights come from). With ``--flicker``, the warping
error (dblr_plugin/evaluation/consistency.py) of each method's output: the mean squared difference of each frame and the
next, warped to it along the flow of the sharp clip, in thousandths, as the mean of each clip. The sharp clip's own
error comes from flow, interpolation and noise.
A method is ``unsharp`` (OpenCV, sigma 1, amount 0.3), ``fourier`` (Fourier burst accumulation), a name of
``dblr weights``, or a file of weights; with ``@int8`` appended (``light@int8``), weights are run in int8, and with a
plus (``light+``), the results of four flips are averaged (``--self-ensemble``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.archs import FourierBurstAccumulation
from dblr_plugin.evaluation.consistency import flow_and_visible, warped_difference
from dblr_plugin.evaluation.perceptual import lpips
from dblr_plugin.evaluation.psnr_ssim import psnr
from dblr_plugin.restore.video_restorer import VideoRestorer

Restore = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]
Middle = Callable[[np.ndarray], np.ndarray]
WINDOW, MIDDLE = 5, 2  # number of frames, and the index of the restored one
BLURRED = ('motion', 'hand')
PERFECT = 100.0  # dB, for frames returned bit for bit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='where corpus.py and heldout.sh put the clips')
    parser.add_argument('methods', nargs='+')
    parser.add_argument('--skip-sharp', action='store_true')
    parser.add_argument('--lpips', action='store_true', help='LPIPS instead of PSNR')
    parser.add_argument('--flicker', action='store_true', help='the warping error instead of PSNR')
    args = parser.parse_args()
    methods = {name: method_of(name) for name in args.methods}
    if args.flicker:
        print_flicker(args.root / 'test' / 'motion' / 'train', methods)
        return
    for kind in BLURRED:
        print_blurred = print_lpips if args.lpips else print_gains
        print_blurred(args.root / 'test' / kind / 'train', kind, methods)
    if not (args.skip_sharp or args.lpips):
        print_sharp(args.root / 'test' / 'sharp' / 'train' / 'gt', methods)


def method_of(name: str) -> Restore:
    """Returns a function that restores a clip."""
    if name == 'unsharp':
        return lambda frames: (cv2.addWeighted(f, 1.3, cv2.GaussianBlur(f, (0, 0), 1), -0.3, 0) for f in frames)
    return restorer_of(name).restore


def restorer_of(name: str) -> VideoRestorer:
    """Returns the restorer of a method other than ``unsharp``."""
    if name == 'fourier':
        return VideoRestorer(FourierBurstAccumulation(), {'type': 'FourierBurstAccumulation'})
    weights, _, precision = name.removesuffix('+').partition('@')
    settings = {'precision': precision or 'fp32', 'self_ensemble': name.endswith('+')}
    return VideoRestorer.from_weights(weights, backend='auto', **settings)


def middle_of(name: str) -> Middle:
    """Returns a method as a function of five frames ``(5, h, w, 3)``, RGB, uint8, that restores the middle one."""
    if name == 'unsharp':
        restore = method_of(name)
        return lambda frames: next(restore(frames[MIDDLE:]))
    restorer = restorer_of(name)

    def middle(frames: np.ndarray) -> np.ndarray:
        ((restored, _),) = restorer.restore_clip(frames.__getitem__, WINDOW, range(MIDDLE, MIDDLE + 1))
        return (restored.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    return middle


def print_gains(root: Path, kind: str, methods: dict[str, Restore]) -> None:
    """Prints a row for each clip: its PSNR, and what each method adds."""
    heading(kind, ['blurry', *methods])
    lines = []
    for clip in sorted((root / 'lq').iterdir()):
        blurry, sharp = read(clip), read(root / 'gt' / clip.name)
        before = mean_psnr(blurry, sharp)
        lines.append([before, *(mean_psnr(restore(blurry), sharp) - before for restore in methods.values())])
        show(clip.name.split('_')[0], lines[-1])
    show('mean', np.mean(lines, 0))
    show('worst', np.min(lines, 0))


def print_lpips(root: Path, kind: str, methods: dict[str, Restore]) -> None:
    """Prints a row for each clip: LPIPS of the blurry frames and of each method's output."""
    heading(f'LPIPS, {kind}', ['blurry', *methods])
    lines = []
    for clip in sorted((root / 'lq').iterdir()):
        blurry, sharp = read(clip), read(root / 'gt' / clip.name)
        restored = (restore(blurry) for restore in methods.values())
        lines.append([mean_lpips(frames, sharp) for frames in (blurry, *restored)])
        show(clip.name.split('_')[0], lines[-1], '.3f', '.3f')
    show('mean', np.mean(lines, 0), '.3f', '.3f')


def mean_lpips(frames: Iterable[np.ndarray], sharp: list[np.ndarray]) -> float:
    """Mean LPIPS over frames."""
    return float(
        np.mean([lpips(frame[..., ::-1], truth[..., ::-1]) for frame, truth in zip(frames, sharp, strict=True)])
    )


def print_sharp(root: Path, methods: dict[str, Restore]) -> None:
    """Prints a row for each sharp clip: the PSNR of each method's output."""
    heading('sharp', ['', *methods])
    lines = []
    for clip in sorted(root.iterdir()):
        sharp = read(clip)
        lines.append([mean_psnr(restore(sharp), sharp) for restore in methods.values()])
        show(clip.name.split('_')[0], [np.nan, *lines[-1]])
    show('mean', [np.nan, *np.mean(lines, 0)])
    show('worst', [np.nan, *np.min(lines, 0)])


def print_flicker(root: Path, methods: dict[str, Restore]) -> None:
    """Prints a row for each clip: the warping error of the sharp and blurry frames and of each method's output."""
    heading('warping error, thousandths', ['sharp', 'blurry', *methods])
    lines = []
    for clip in sorted((root / 'lq').iterdir()):
        sharp, blurry = read(root / 'gt' / clip.name), read(clip)
        bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in sharp]
        flows = [flow_and_visible(first, second) for first, second in pairwise(bgr)]
        restored = (restore(blurry) for restore in methods.values())
        lines.append([mean_warping_error(frames, flows) for frames in (sharp, blurry, *restored)])
        show(clip.name.split('_')[0], lines[-1], '.2f')
    ratios = np.array(lines) / np.array(lines)[:, 1:2]
    show('mean', np.mean(lines, 0), '.2f')
    show('relative to blurry, mean of clips', ratios.mean(0), '.2f')
    show('relative to blurry, largest', ratios.max(0), '.2f')


def mean_warping_error(frames: Iterable[np.ndarray], flows: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean over the pairs of consecutive frames with common pixels, in thousandths."""
    pairs = zip(pairwise(frames), flows, strict=True)
    return 1000 * float(np.mean([warped_difference(*pair, *flow) for pair, flow in pairs if flow[1].any()]))


def read(folder: Path) -> list[np.ndarray]:
    """Reads the frames of a clip, RGB."""
    return [cv2.imread(str(path))[..., ::-1].copy() for path in sorted(folder.glob('*.png'))]


def mean_psnr(frames: Iterable[np.ndarray], sharp: list[np.ndarray]) -> float:
    """Mean PSNR over frames, in dB."""
    return float(np.mean([min(psnr(frame, truth), PERFECT) for frame, truth in zip(frames, sharp, strict=True)]))


def heading(title: str, columns: list[str]) -> None:
    """Starts a table."""
    names = [label(column) for column in columns]
    print(f'\n| {title} | {" | ".join(names)} |\n|---|{"---|" * len(names)}')


def label(method: str) -> str:
    """A method's name in tables and plots; for files, the file name without its suffix."""
    return Path(method).name.replace('.pth', '').replace('.safetensors', '')


def show(name: str, values: Iterable[float], others_as: str = '+.2f', first_as: str = '.2f') -> None:
    """Prints a row of a table; without a first value, that column is empty and the others have one digit."""
    first, *others = values
    if np.isnan(first):
        cells = ['', *(f'{value:.1f}' for value in others)]
    else:
        cells = [f'{first:{first_as}}', *(f'{value:{others_as}}' for value in others)]
    print(f'| {name} | {" | ".join(cells)} |')
    sys.stdout.flush()


if __name__ == '__main__':
    main()
