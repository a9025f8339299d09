"""Named evaluation protocols: the frames, colour space, crop, alignment, rounding and mean behind a score.

The same frames score up to 1.5 dB higher by one than by another (docs/evaluation.md), so every score names its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from dblr_plugin.errors import DBLRError, nearest, raise_faults

if TYPE_CHECKING:
    import numpy as np

__all__ = ['ALL', 'PROTOCOLS', 'Protocol', 'choose_protocols', 'with_metrics']

#: selects every protocol, in option files and on command lines
ALL = 'all'


def _psnr_and(ssim: str) -> dict[str, dict[str, Any]]:
    return {'psnr': {'type': 'psnr'}, 'ssim': {'type': ssim}}


def _all_frames(count: int) -> Sequence[int]:
    return range(count)


def _full_windows(count: int) -> Sequence[int]:
    """Frames with two neighbours on both sides; all frames if the clip is too short for any."""
    return range(2, count - 2) if count >= 5 else range(count)


def _thirty_frames(count: int) -> Sequence[int]:
    """Thirty evenly spaced frames with full windows: ``floor(linspace(2, 97, 30))`` of 100; fewer in short clips."""
    inner = _full_windows(count)
    if len(inner) <= 30:
        return inner
    step = (inner[-1] - inner[0]) / 29
    return [math.floor(inner[0] + i * step) for i in range(29)] + [inner[-1]]


@dataclass(frozen=True)
class Protocol:
    """How restored frames are scored against their ground truth.

    Attributes:
        name: Identifies the protocol wherever its scores appear.
        meaning: One-line description for users.
        frames: Maps a clip's length to the indices of its scored frames, in order.
        colour: ``rgb``; ``y`` (BT.601 as in BasicSR, 16 to 235); or ``luminance`` (BT.601, 0 to 255).
        size_multiple: Height and width are cut at the bottom and right to multiples of this.
        crop: Pixels removed at each edge after that.
        registered: Whether the restored frame is first aligned by gain and shift.
        metrics: As ``val.metrics``: name in tables -> ``type``, a name of :mod:`dblr_plugin.evaluation.metrics`, and
            settings, which override ``colour`` and ``crop``.
        mean: Which mean is the protocol's score of a data set: over clip means or over all frames.
    """

    name: str
    meaning: str
    frames: Callable[[int], Sequence[int]] = _all_frames
    colour: Literal['rgb', 'y', 'luminance'] = 'rgb'
    size_multiple: int = 1
    crop: int = 0
    registered: bool = False
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _psnr_and('ssim'))
    mean: Literal['clips', 'frames'] = 'clips'

    @property
    def needs_before(self) -> bool:
        """Whether any metric also uses the previous frame."""
        from dblr_plugin.evaluation.metrics import find_metric

        return any(find_metric(settings['type']).needs_before for settings in self.metrics.values())

    def check_sizes(self, sizes: Mapping[str, tuple[int, int]], with_truth: bool = True) -> None:
        """Rejects clips with frames too small for a metric.

        Args:
            sizes: Clip -> (height, width) of its frames.
            with_truth: Whether there is ground truth to compare with.

        Raises:
            DBLRError: Some clips have too small frames; the message names them all.
        """
        from dblr_plugin.evaluation.metrics import find_metric

        faults = []
        for clip, size in sizes.items():
            for settings in self.metrics.values():
                metric, crop = find_metric(settings['type']), settings.get('crop_border', self.crop)
                height, width = (side - side % self.size_multiple - 2 * crop for side in size)
                reason = metric.too_small(height, width) if with_truth or not metric.needs_gt else None
                if reason is None:
                    continue
                fits_uncropped = metric.too_small(height + 2 * crop, width + 2 * crop) is None
                fix = f'crop less than crop_border {crop}' if fits_uncropped else 'leave that metric out'
                faults.append(f"clip '{clip}' of {size[1]}x{size[0]}, protocol {self.name}: {reason}; {fix}")
        raise_faults(faults, 'sizes of frames')

    def score(
        self,
        restored: np.ndarray,
        truth: np.ndarray | None = None,
        before: tuple[np.ndarray, np.ndarray | None] | None = None,
    ) -> dict[str, float]:
        """Scores one frame after rounding it to integers.

        Args:
            restored: BGR ``(h, w, 3)`` in [0, 255], float or uint8.
            truth: BGR ``(h, w, 3)`` in [0, 255], integers; None without ground truth.
            before: The same pair for the previous frame, if there is one; used only if :attr:`needs_before`.

        Returns:
            Metric -> score, for the metrics these frames allow. PSNR is infinite for equal frames.

        Raises:
            DBLRError: The frames differ in size, or a metric cannot score them, for example because they are smaller
                than SSIM's window.
        """
        from dblr_plugin.evaluation.metrics import find_metric  # deferred: the help only lists protocols

        images = self._prepared(restored, truth, '')
        if before is not None and self.needs_before:
            images |= self._prepared(*before, '_before')
        common = {'crop_border': self.crop, 'test_y_channel': self.colour == 'y'}
        scores = {
            name: find_metric(settings['type']).score(images, common | dict(settings))
            for name, settings in self.metrics.items()
        }
        return {name: score for name, score in scores.items() if score is not None}

    def _prepared(self, restored: np.ndarray, truth: np.ndarray | None, suffix: str) -> dict[str, np.ndarray]:
        """Prepares a frame for the metrics: rounded, cut, aligned and in the protocol's colours."""
        import numpy as np

        from dblr_plugin.evaluation.psnr_ssim import LUMINANCE, register

        if truth is not None and truth.shape != restored.shape:
            ours, theirs = (f'{frame.shape[1]}x{frame.shape[0]}' for frame in (restored, truth))
            raise DBLRError(f'the restored frame is {ours} (w x h), the sharp one {theirs}; both must have one size')
        height, width = (length - length % self.size_multiple for length in restored.shape[:2])
        pair = [restored.round().astype(np.uint8), *([] if truth is None else [truth])]
        pair = [image[:height, :width] for image in pair]
        if self.registered and truth is not None:
            pair = list(register(*pair))
        if self.colour == 'luminance':
            pair = [image @ LUMINANCE for image in pair]
        return dict(zip((f'img{suffix}', f'img2{suffix}'), pair, strict=False))


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol('basicsr', 'RGB, uint8, all frames, no crop, mean of clip means'),
        # Su et al. (DVD) published the frame indices, and the evaluation code of Koehler et al. as their PSNR. That
        # code converts aligned frames to luminance. Their second figure is multi-scale SSIM: `--metric ms_ssim`.
        Protocol(
            'dvd-official',
            'luminance after gain and shift registration, uint8, 30 frames of each clip, no crop, mean of clip means',
            frames=_thirty_frames,
            colour='luminance',
            registered=True,
        ),
        # VRT's README points to KAIR's evaluate_video_deblurring.m for final figures: MATLAB's psnr and ssim of saved
        # frames. The figures printed by its test and by KAIR's training follow protocol basicsr.
        Protocol(
            'vrt-matlab',
            "RGB, uint8, all frames, no crop, MATLAB's SSIM over pixels and channels, mean over all frames",
            metrics=_psnr_and('ssim_3d'),
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
    """Looks up protocols by name, without duplicates, in order.

    Args:
        names: A name, ``all``, or several names.

    Raises:
        DBLRError: A protocol does not exist, or no name is given.
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


def with_metrics(protocols: Iterable[Protocol], metrics: Mapping[str, Mapping[str, Any]]) -> list[Protocol]:
    """Adds metrics, as in ``val.metrics``, to protocols; the metrics they already have stay unchanged."""
    return [replace(protocol, metrics={**protocol.metrics, **metrics, **protocol.metrics}) for protocol in protocols]
