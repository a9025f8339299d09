"""The user's video settings: which part to restore, the frame rate, and how to encode."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from dblr_plugin.errors import DBLRError, nearest

__all__ = ['DEFAULT', 'EncoderSettings', 'described_part', 'parse_position', 'parse_rate', 'parse_time']

# nine digits of seconds are years, and fit into FFmpeg's integers
_TIME = re.compile(r'(?:(?:(\d{1,9}):)?(\d{1,9}):)?(\d{1,9}(?:\.\d*)?|\.\d+)')
_LONGEST = 10**9
_RATE = re.compile(r'[\d./]{1,20}')


def parse_time(text: str | float | Fraction, option: str) -> Fraction:
    """Returns seconds, parsed from ``90``, ``1:30`` or ``0:01:30.5``, or from a number as it is.

    Raises:
        DBLRError: The text is none of these, or the number is negative; ``option`` names it in the message.
    """
    if not isinstance(text, str) and 0 <= text < _LONGEST:
        return Fraction(str(text))  # the decimal that was meant: 0.2 itself is later than the frame at 1/5
    match = _TIME.fullmatch(str(text).strip())
    if match is None:
        raise DBLRError(f"{option} '{text}' is not a time; give seconds, such as 90.5, or h:mm:ss, such as 0:01:30.5")
    hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_position(text: str | float, option: str) -> int:
    """Returns the number of a frame in a folder, 0 for the first; raises DBLRError for anything else."""
    if not re.fullmatch(r'\d{1,9}', str(text).strip()):
        raise DBLRError(f"{option} '{text}' is not a frame number; the frames of a folder are numbered 0, 1, 2, ...")
    return int(text)


def parse_rate(text: str | float | Fraction) -> Fraction:
    """Returns frames per second, parsed from ``25``, ``29.97`` or ``30000/1001``; raises DBLRError otherwise."""
    text = str(text).strip()
    try:
        rate = Fraction(text if _RATE.fullmatch(text) else 0)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 10000:
        raise DBLRError(f"--fps '{text}' is not a frame rate; give a number such as 25 or 30000/1001")
    return rate.limit_denominator(1001000)


def described_part(start: int | Fraction | None, end: int | Fraction | None, unit: str = '') -> str:
    """Returns in words which part of an input is asked for.

    >>> described_part(Fraction(3, 2), 4, ' s'), described_part(9, None), described_part(None, 0)
    ('from 1.5 to 4 s', 'from 9 on', 'before 0')
    """
    if start is None:
        return '' if end is None else f'before {float(end):g}{unit}'
    return f'from {float(start):g}{unit} on' if end is None else f'from {float(start):g} to {float(end):g}{unit}'


_WORST = 63  # quality
_PRESETS = (
    'ultrafast', 'superfast', 'veryfast', 'faster', 'fast', 'medium', 'slow', 'slower', 'veryslow', 'placebo'
)  # fmt: skip


@dataclass(frozen=True)
class EncoderSettings:
    """How to encode a video; defaults depend on container and source.

    Attributes:
        encoder: FFmpeg's name; by default H.264, or VP9 for WebM.
        quality: Quality on the encoder's own scale, lower is better: CRF for libx264, libx265, libvpx-vp9 and AV1. By
            default hardly distinguishable from the original.
        lossless: Whether to encode losslessly; to RGB if the encoder supports it, otherwise to 4:4:4.
        preset: The encoder's own trade-off between encoding time and file size; for x264 and x265 ``ultrafast`` to
            ``placebo``, by default ``medium``.

    Raises:
        DBLRError: The settings contradict each other or are invalid.
    """

    encoder: str | None = None
    quality: float | None = None
    lossless: bool = False
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and self.lossless:
            raise DBLRError('--lossless and --quality exclude each other; give one of them')
        if self.quality is not None and not 0 <= self.quality <= _WORST:
            raise DBLRError(f'--quality is {self.quality:g}; give 0 (best) to {_WORST}, for libx264 about 17')
        is_of_x26 = self.encoder is None or self.encoder.startswith(('libx264', 'libx265'))
        if self.preset is not None and is_of_x26 and self.preset not in _PRESETS:
            raise DBLRError(
                f"no preset is called '{self.preset}'{nearest(self.preset, _PRESETS)} (there are {', '.join(_PRESETS)})"
            )


#: The default settings.
DEFAULT = EncoderSettings()
