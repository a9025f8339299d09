"""Blurry/sharp clips from a sharp video: a long exposure is the mean of consecutive frames in linear light.

A sensor adds up light, while the values in a video file are encoded for display. So frames are taken to linear light,
averaged there, and taken back. Both directions use the sRGB transfer function of IEC 61966-2-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.errors import DBLRError

__all__ = ['blur_frames', 'linear_to_srgb', 'read_video', 'srgb_to_linear', 'write_clip_pair']


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Decodes sRGB values in [0, 1] to linear light in [0, 1]; float64, any shape."""
    value = np.asarray(value, np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Encodes linear light in [0, 1] as sRGB values in [0, 1]; float64, any shape. Inverts :func:`srgb_to_linear`."""
    light = np.asarray(light, np.float64)
    return np.where(light <= 0.04045 / 12.92, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


# An 8-bit frame holds 256 different values: looking them up is exact and much faster than the power function.
_LINEAR_LIGHT = srgb_to_linear(np.arange(256) / 255)

# Stored, not deflated: footage with noise hardly shrinks, and a training decodes every frame many times.
_PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 0)


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """Yields the frames of a video file in order, as uint8 RGB arrays (h, w, 3).

    Raises:
        DBLRError: PyAV is not installed, or the file is missing, is not a video, or is damaged.
    """
    try:
        import av
    except ImportError as error:
        raise DBLRError("reading a video needs PyAV: pip install 'dblr_plugin[demo]'") from error
    if not Path(path).is_file():
        raise DBLRError(f'{path}: no such video file')
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DBLRError(f'{path}: holds no video stream')
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format='rgb24')
    except av.error.FFmpegError as error:
        raise DBLRError(f'{path}: cannot be decoded as video ({error.strerror})') from error


def blur_frames(frames: Sequence[np.ndarray], num_average: int) -> np.ndarray:
    """Returns the long exposure around the middle frame: the mean of ``num_average`` frames in linear light.

    Args:
        frames: uint8 RGB frames (h, w, 3), an odd number of them; the middle one is the sharp counterpart.
        num_average: how many frames around the middle one the exposure lasts; odd, at most ``len(frames)``.

    Returns:
        A uint8 RGB frame (h, w, 3). Frames that are all alike come back unchanged to the bit.

    Raises:
        DBLRError: a number is even, or there are fewer frames than the exposure needs.
    """
    _check_average(num_average)
    if len(frames) % 2 == 0 or len(frames) < num_average:
        raise DBLRError(
            f'an exposure of {num_average} frames needs an odd number of {num_average} or more, got {len(frames)}'
        )
    first = (len(frames) - num_average) // 2
    light = np.zeros(frames[first].shape, np.float64)
    for frame in frames[first : first + num_average]:
        light += _LINEAR_LIGHT[frame]
    return np.rint(linear_to_srgb(light / num_average) * 255).astype(np.uint8)


def write_clip_pair(
    frames: Sequence[np.ndarray],
    root_lq: str | Path,
    root_gt: str | Path,
    clip: str,
    num_average: int,
    stride: int,
) -> int:
    """Writes one blurry clip and its sharp counterpart as PNG frames ``<root>/<clip>/00000000.png`` and on.

    Only centre frames whose whole exposure lies within ``frames`` are used. With ``stride >= num_average`` no source
    frame is part of two exposures, as in a camera.

    Args:
        frames: consecutive uint8 RGB frames (h, w, 3) of one shot.
        root_lq: folder of the blurry clips.
        root_gt: folder of the sharp clips.
        clip: the clip's name.
        num_average: source frames in one exposure, odd.
        stride: source frames from one exposure to the next, positive.

    Returns:
        The number of frame pairs written.

    Raises:
        DBLRError: ``num_average`` is even, ``stride`` is not positive, there are too few frames, or the disk refuses.
    """
    _check_average(num_average)
    if stride < 1:
        raise DBLRError(f'clip {clip}: the stride must be at least 1, got {stride}')
    if len(frames) < num_average:
        raise DBLRError(f'clip {clip}: an exposure of {num_average} frames needs at least as many, got {len(frames)}')
    reach = num_average // 2
    centres = range(reach, len(frames) - reach, stride)
    for index, centre in enumerate(centres):
        exposure = frames[centre - reach : centre + reach + 1]
        _write_png(Path(root_lq, clip, f'{index:08d}.png'), blur_frames(exposure, num_average))
        _write_png(Path(root_gt, clip, f'{index:08d}.png'), frames[centre])
    return len(centres)


def _check_average(num_average: int) -> None:
    if num_average < 1 or num_average % 2 == 0:
        raise DBLRError(f'the number of averaged frames must be odd, so that one is in the middle; got {num_average}')


def _write_png(path: Path, frame: np.ndarray) -> None:
    """Writes a uint8 RGB frame (h, w, 3), creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), _PNG_OPTIONS):
        raise DBLRError(f'{path}: could not be written (is the disk full?)')
