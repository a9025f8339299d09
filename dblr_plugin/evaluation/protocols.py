"""Named evaluation protocols: frames, colour, crop, alignment, rounding and mean behind a score.

The same weights move by up to about 0.7 dB between them, so every figure names its protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dblr_plugin.errors import DBLRError, nearest

if TYPE_CHECKING:
    import numpy as np

__all__ = ['ALL', 'PROTOCOLS', 'SSIMS', 'Protocol', 'choose_protocols', 'with_all_ssims']

#: stands for every protocol, in option files and on command lines
ALL = 'all'

#: The kinds of SSIM that papers give. They lie up to some hundredths apart, and tables mix them.
SSIMS = ('ssim_2d', 'ssim_3d', 'ms_ssim')


def _all_frames(count: int) -> Sequence[int]:
    return range(count)


def _full_windows(count: int) -> Sequence[int]:
    """The frames with two neighbours on both sides; all frames of a clip too short to have any."""
    return range(2, count - 2) if count >= 5 else range(count)


def _thirty_frames(count: int) -> Sequence[int]:
    """Thirty frames spread over those of full windows, ``floor(linspace(2, 97, 30))`` of 100; fewer in short clips."""
    inner = _full_windows(count)
    if len(inner) <= 30:
        return inner
    step = (inner[-1] - inner[0]) / 29
    return [math.floor(inner[0] + i * step) for i in range(29)] + [inner[-1]]


@dataclass(frozen=True)
class Protocol:
    """How figures are made of restored frames and their ground truth.

    Attributes:
        name: What figures call it.
        meaning: The same in one line, for people.
        frames: Indices of the frames of a clip of the given length that are scored, in order.
        colour: ``rgb``; ``y`` (BT.601 as BasicSR has it, 16 to 235); or ``luminance`` (BT.601, 0 to 255).
        size_multiple: Height and width are cut at the bottom and right to multiples of it.
        crop: Pixels removed at each edge after that.
        registered: Whether the restored frame is aligned by gain and shift first.
        ssim: The kind of SSIM, of :data:`SSIMS`, that is its second figure.
        more_ssims: Further kinds that are told beside it, by their own names.
        mean: Which mean is the protocol's figure for a data set: over clip means or over all frames.
    """

    name: str
    meaning: str
    frames: Callable[[int], Sequence[int]] = _all_frames
    colour: Literal['rgb', 'y', 'luminance'] = 'rgb'
    size_multiple: int = 1
    crop: int = 0
    registered: bool = False
    ssim: str = 'ssim_2d'
    more_ssims: tuple[str, ...] = ()
    mean: Literal['clips', 'frames'] = 'clips'

    def score(self, restored: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        """Scores one frame, after rounding it to whole grey values, with PSNR and SSIM.

        Args:
            restored: BGR ``(h, w, 3)`` in [0, 255], float or uint8.
            truth: BGR ``(h, w, 3)`` in [0, 255], whole numbers.

        Returns:
            ``psnr`` in dB, infinite for equal frames, ``ssim``, and those of ``more_ssims``.

        Raises:
            DBLRError: After the crop less is left of the frame than SSIM's window.
        """
        # here, so that the help, which lists the protocols, needs none of it
        import numpy as np

        from dblr_plugin.evaluation.ms_ssim import ms_ssim
        from dblr_plugin.evaluation.psnr_ssim import LUMINANCE, SSIM_WINDOW, psnr, ssim, ssim_3d
        from dblr_plugin.evaluation.registration import register

        ssims = dict(zip(SSIMS, (ssim, ssim_3d, ms_ssim), strict=True))
        restored = restored.round().astype(np.uint8)
        height, width = (length - length % self.size_multiple for length in truth.shape[:2])
        restored, truth = restored[:height, :width], truth[:height, :width]
        if min(height, width) - 2 * self.crop < SSIM_WINDOW:
            raise DBLRError(
                f'protocol {self.name}: frames of {truth.shape[1]}x{truth.shape[0]} (w x h) are too small: without '
                f'{self.crop} pixels at each edge there must be {SSIM_WINDOW}'
            )
        if self.registered:
            restored, truth = register(restored, truth)
        if self.colour == 'luminance':
            restored, truth = restored @ LUMINANCE, truth @ LUMINANCE
        settings = self.crop, self.colour == 'y'
        figures = {'psnr': psnr(restored, truth, *settings), 'ssim': ssims[self.ssim](restored, truth, *settings)}
        return figures | {name: ssims[name](restored, truth, *settings) for name in self.more_ssims}


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol('basicsr', 'RGB, uint8, all frames, no crop, mean of clip means'),
        # Su et al. (DVD) published the frames' indices, and the evaluation code of Koehler et al. as their PSNR. That
        # code turns aligned frames to luminance. Their second figure is multi-scale SSIM: `--ssim all` has it.
        Protocol(
            'dvd-official',
            'luminance after gain and shift registration, uint8, 30 frames of each clip, no crop, mean of clip means',
            frames=_thirty_frames,
            colour='luminance',
            registered=True,
        ),
        # VRT's README names evaluate_video_deblurring.m of KAIR for final figures: MATLAB's psnr and ssim of written
        # frames. What its test and KAIR's training print is protocol basicsr.
        Protocol(
            'vrt-matlab',
            "RGB, uint8, all frames, no crop, MATLAB's SSIM over pixels and channels, mean over all frames",
            ssim='ssim_3d',
            mean='frames',
        ),
        # CDVD-TSP's inference.py without --border
        Protocol(
            'cdvd-tsp',
            'RGB, uint8, frames 2 to N-3, sides cut to multiples of 4, 4 pixels cropped, mean over all frames',
            frames=_full_windows,
            size_multiple=4,
            crop=4,
            mean='frames',
        ),
        Protocol('luma', 'Y (BT.601), uint8, all frames, no crop, mean of clip means', colour='y'),
    )
}


def choose_protocols(names: str | Iterable[str]) -> list[Protocol]:
    """The protocols of these names, each once, in order.

    Args:
        names: A name, ``all``, or several names.

    Raises:
        DBLRError: There is no such protocol, or no name at all.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise DBLRError(f'no protocol is named; choose from {", ".join(PROTOCOLS)}, {ALL}')
    for name in names:
        if name not in (*PROTOCOLS, ALL):
            hint = nearest(name, (*PROTOCOLS, ALL))
            raise DBLRError(f"no protocol is called '{name}'{hint} (there are {', '.join(PROTOCOLS)}, {ALL})")
    chosen = PROTOCOLS if ALL in names else dict.fromkeys(names)
    return [PROTOCOLS[name] for name in chosen]


def with_all_ssims(protocols: Iterable[Protocol]) -> list[Protocol]:
    """The same protocols, telling every kind of SSIM beside their own."""
    return [replace(protocol, more_ssims=SSIMS) for protocol in protocols]
