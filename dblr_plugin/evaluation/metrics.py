"""Metrics by name: the functions of BasicSR's METRIC_REGISTRY, and what each needs to score a frame.

``psnr`` stands for ``calculate_psnr``, and so on; both names work. A function's arguments determine what it needs:
``img`` is the restored frame and ``img2`` its ground truth, ``img_before`` and ``img2_before`` are those of the
previous frame, all BGR ``(h, w, 3)`` in [0, 255]. A metric is scored where all its images are available, so one without
``img2`` scores videos without ground truth. Other arguments, such as ``crop_border`` and ``test_y_channel``, are
settings.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from basicsr.metrics import calculate_niqe  # importing it registers BasicSR's own
from basicsr.utils.registry import METRIC_REGISTRY

from dblr_plugin.data.flow import MIN_SIDE as FLOW_SIZE
from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.evaluation.consistency import warping_error
from dblr_plugin.evaluation.perceptual import MIN_SIDE as LPIPS_SIZE
from dblr_plugin.evaluation.perceptual import lpips, missing_for_lpips
from dblr_plugin.evaluation.psnr_ssim import MS_SSIM_SIZE, SSIM_WINDOW, ms_ssim, psnr, ssim, ssim_3d

__all__ = ['IMAGES', 'Metric', 'all_metrics', 'better_of', 'check_metrics', 'find_metric']

#: Arguments that are images.
IMAGES = frozenset(('img', 'img2', 'img_before', 'img2_before'))

_PREFIX = 'calculate_'


@dataclass(frozen=True)
class Metric:
    """A metric, and how tables print it.

    Attributes:
        name: Name without ``calculate_``.
        function: Computes the score; returns None for frames it cannot score.
        better: Whether higher or lower scores are better.
        title: Name in tables.
        unit: Unit of the printed scores, which are ``scale`` times the measured ones.
        digits: Digits after the decimal point.
        least: Minimum shorter and longer side, in pixels.
        missing: Given the settings, returns why the metric cannot be measured on this machine, with the fix; None if
            it can.
    """

    name: str
    function: Callable[..., float | None]
    better: Literal['higher', 'lower'] = 'higher'
    title: str = ''
    unit: str = ''
    scale: float = 1
    digits: int = 4
    least: tuple[int, int] = (1, 1)
    missing: Callable[[Mapping[str, Any]], str | None] = lambda settings: None

    @property
    def needs(self) -> frozenset[str]:
        """The images it is computed from."""
        return IMAGES & inspect.signature(self.function).parameters.keys()

    @property
    def needs_gt(self) -> bool:
        """Whether it compares with the ground truth."""
        return not self.needs <= {'img', 'img_before'}

    @property
    def needs_before(self) -> bool:
        """Whether it also uses the previous frame."""
        return not self.needs <= {'img', 'img2'}

    def too_small(self, height: int, width: int) -> str | None:
        """Explains why it cannot score frames of a size, given after border cropping; None if it can."""
        if height >= 1 <= width and all(s >= n for s, n in zip(sorted((height, width)), self.least, strict=True)):
            return None
        sides = ' and '.join(dict.fromkeys(map(str, self.least)))
        compared = f'{width}x{height} (w x h)' if height >= 1 <= width else 'nothing'
        unit = 'pixel' if sides == '1' else 'pixels'
        return f'{self.title} needs sides of {sides} {unit} or more, and compares {compared}'

    def score(self, images: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> float | None:
        """Scores a frame.

        Args:
            images: The available ones of :data:`IMAGES`.
            settings: Arguments of the function; those it does not accept are dropped.

        Returns:
            The score; None if a required image is missing or the function returns none.

        Raises:
            DBLRError: The function fails.
        """
        if not self.needs <= images.keys():
            return None
        parameters = inspect.signature(self.function).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        known = settings.keys() - {'type'} if takes_all else settings.keys() & parameters.keys()
        taken = {key: settings[key] for key in known}
        try:
            # third-party functions may write into their images, which the next metrics score
            own = {name: images[name] if self.name in _KNOWN else images[name].copy() for name in self.needs}
            value = self.function(**own, **taken)
            # BasicSR's functions return NumPy scalars, which checkpoints cannot hold
            return None if value is None else float(value)
        except DBLRError:
            raise
        except Exception as error:  # third-party functions may raise anything
            height, width = images['img'].shape[:2]
            raise DBLRError(
                f'metric {self.name} fails on frames of {width}x{height} (w x h): {type(error).__name__}: {error}'
            ) from error


def all_metrics() -> dict[str, Callable]:
    """Maps every name, long or short, to its function."""
    registered = dict(iter(METRIC_REGISTRY))
    return {name.removeprefix(_PREFIX): function for name, function in registered.items()} | registered


def find_metric(name: str) -> Metric:
    """Finds a metric by name, with or without ``calculate_``.

    Raises:
        DBLRError: There is no such metric, or there are two.
    """
    metrics, short = all_metrics(), name.removeprefix(_PREFIX)
    if name not in metrics:
        known = sorted({known.removeprefix(_PREFIX) for known in metrics})
        raise DBLRError(f"no metric is called '{name}'{nearest(name, known)} (there are {', '.join(known)})")
    function = metrics[name]
    if metrics[short] is not metrics.get(_PREFIX + short, metrics[short]):
        raise DBLRError(f"two metrics are called '{short}', as {_PREFIX}{short} has that name too; rename your own")
    about: dict[str, Any] = {
        'title': short,
        'better': getattr(function, 'better', 'higher'),
        **_KNOWN.get(short, {}),
    }
    return Metric(short, _INSTEAD.get(short, function), **about)


def better_of(name: str, metrics: Mapping[str, Mapping[str, Any]]) -> Literal['higher', 'lower']:
    """Whether higher or lower scores are better, from ``val.metrics`` if it says so, otherwise from the metric."""
    settings = metrics.get(name, {})
    try:
        return settings.get('better') or find_metric(settings.get('type', name)).better
    except DBLRError:  # an unknown metric in an older record
        return 'higher'


def check_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Rejects metrics that cannot be measured here.

    Args:
        metrics: Name in tables -> ``type`` and settings, as in ``val.metrics``.

    Raises:
        DBLRError: A metric is unknown or lacks something it needs.
    """
    for name, settings in metrics.items():
        reason = find_metric(settings['type']).missing(settings)
        if reason is not None:
            raise DBLRError(f'{name} cannot be measured: {reason}')


def _niqe(img: np.ndarray, crop_border: int = 0, **settings: Any) -> float | None:
    """BasicSR's NIQE; None if fewer than two of its blocks of 96x96 pixels have texture, as in a black frame."""
    try:
        with np.errstate(divide='ignore', invalid='ignore'):  # of blocks without texture, which it leaves out
            value = calculate_niqe(img, crop_border, **settings)
    except np.linalg.LinAlgError:
        return None
    return None if math.isnan(value) else value


# functions with the same scores as BasicSR's: faster, or defined for all frames
_INSTEAD: dict[str, Callable] = {'psnr': psnr, 'ssim': ssim, 'niqe': _niqe}

_KNOWN: dict[str, dict[str, Any]] = {
    'psnr': {'title': 'PSNR', 'unit': 'dB', 'digits': 2},
    'ssim': {'title': 'SSIM', 'least': (SSIM_WINDOW,) * 2},
    'ssim_2d': {'title': '2-D SSIM', 'least': (SSIM_WINDOW,) * 2},
    'ssim_3d': {'title': '3-D SSIM', 'least': (SSIM_WINDOW,) * 2},
    'ms_ssim': {'title': 'MS-SSIM', 'least': (MS_SSIM_SIZE,) * 2},
    'lpips': {
        'title': 'LPIPS',
        'better': 'lower',
        'least': (LPIPS_SIZE,) * 2,
        'missing': lambda settings: missing_for_lpips(settings.get('backbone')),
    },
    'warping_error': {
        'title': 'Warping error',
        'unit': '10⁻³',
        'scale': 1e3,
        'digits': 3,
        'better': 'lower',
        'least': (FLOW_SIZE,) * 2,
    },
    'niqe': {'title': 'NIQE', 'better': 'lower', 'digits': 2, 'least': (96, 192)},  # two blocks of 96x96
}


def _register(name: str, function: Callable) -> None:
    """Registers a metric for BasicSR's trainer, which passes all keys of ``val.metrics``, including ``better``."""
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def calculate(*args: Any, **kwargs: Any) -> float | None:
        return function(*args, **{key: value for key, value in kwargs.items() if key in parameters})

    calculate.__name__ = _PREFIX + name
    METRIC_REGISTRY.register(calculate)


_register('ssim_2d', ssim)
_register('ssim_3d', ssim_3d)
_register('ms_ssim', ms_ssim)
_register('lpips', lpips)
_register('warping_error', warping_error)
