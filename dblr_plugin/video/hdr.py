"""HDR10 metadata (mastering display and content light level), passed on to encoders that support it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av import VideoFrame

__all__ = ['Light', 'with_light']

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Light:
    """What HDR10 says of a whole film.

    Attributes:
        display: The mastering display: x and y of red, green, blue and white in 1/50000, darkest and brightest in
            1/10000 cd/m2; empty where it is not said.
        level: The brightest pixel and the brightest picture's mean in cd/m2; empty where they are not said.
    """

    display: tuple[int, ...] = ()
    level: tuple[int, ...] = ()

    @classmethod
    def of(cls, frame: VideoFrame) -> Light:
        """Returns what a decoded frame says."""
        display = frame.side_data.get('MASTERING_DISPLAY_METADATA')
        level = frame.side_data.get('CONTENT_LIGHT_LEVEL')
        return cls(() if display is None else _display(bytes(display)), () if level is None else _level(bytes(level)))


def with_light(codec: str, options: dict[str, str], light: Light, output: Path) -> dict[str, str]:
    """Returns an encoder's options with HDR10's data; warns where the encoder has no place for them."""
    if not (light.display or light.level):
        return options
    if codec not in ('libx264', 'libx265'):
        text = '%s: HDR10 mastering display and light level are left out, the encoder %s has none; take libx265'
        _log.warning(text, output, codec)
        return options
    display, level, name = {
        'libx264': ('mastering-display', 'cll', 'x264-params'),
        'libx265': ('master-display', 'max-cll', 'x265-params'),
    }[codec]
    said = [options[name]] if name in options else []
    if light.display:
        red, green, blue, white, (least, most) = (light.display[i : i + 2] for i in range(0, 10, 2))
        points = ''.join(
            f'{k}({x},{y})' for k, (x, y) in zip(('G', 'B', 'R', 'WP'), (green, blue, red, white), strict=True)
        )
        said.append(f'{display}={points}L({most},{least})')
    if light.level:
        said.append(f'{level}={light.level[0]},{light.level[1]}')
    return options | {name: ':'.join(said)}


def _display(data: bytes) -> tuple[int, ...]:
    """Reads FFmpeg's AVMasteringDisplayMetadata: ten fractions, then whether primaries and luminance are said."""
    numbers = np.frombuffer(data, np.int32)
    if len(numbers) < 22 or not (numbers[20] and numbers[21]):
        return ()
    values = numbers[:20:2] / np.maximum(1, numbers[1:20:2])
    return tuple(np.round(values * ([50000] * 8 + [10000] * 2)).astype(int).tolist())


def _level(data: bytes) -> tuple[int, ...]:
    """Reads FFmpeg's AVContentLightMetadata."""
    return tuple(np.frombuffer(data[:8], np.uint32).tolist())
