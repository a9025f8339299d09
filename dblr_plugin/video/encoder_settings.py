"""How a video is to be encoded, as far as users choose it."""

from __future__ import annotations

from dataclasses import dataclass

from dblr_plugin.errors import DBLRError, nearest

__all__ = ['DEFAULT', 'EncoderSettings']

_WORST = 63  # quality
_PRESETS = (
    'ultrafast', 'superfast', 'veryfast', 'faster', 'fast', 'medium', 'slow', 'slower', 'veryslow', 'placebo'
)  # fmt: skip


@dataclass(frozen=True)
class EncoderSettings:
    """What is not said is chosen by container and source.

    Attributes:
        encoder: FFmpeg's name; by default H.264, VP9 for WebM.
        quality: The encoder's own scale, lower is better: CRF for libx264, libx265, libvpx-vp9 and AV1. By
            default hardly distinguishable from the original.
        lossless: Whether the encoder may lose nothing; to RGB where it has that, otherwise to 4:4:4.
        preset: The encoder's own name for how long it may take to make files smaller; x264's and x265's are
            ``ultrafast`` to ``placebo``, by default ``medium``.

    Raises:
        DBLRError: They contradict each other, or cannot be.
    """

    encoder: str | None = None
    quality: float | None = None
    lossless: bool = False
    preset: str | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and self.lossless:
            raise DBLRError('lossless leaves no quality to choose; give one of the two')
        if self.quality is not None and not 0 <= self.quality <= _WORST:
            raise DBLRError(f'quality is {self.quality}; give 0 (best) to {_WORST}, for libx264 about 17')
        is_of_x26 = self.encoder is None or self.encoder.startswith(('libx264', 'libx265'))
        if self.preset is not None and is_of_x26 and self.preset not in _PRESETS:
            raise DBLRError(
                f"no preset is called '{self.preset}'{nearest(self.preset, _PRESETS)} (there are {', '.join(_PRESETS)})"
            )


#: Nothing is said.
DEFAULT = EncoderSettings()
