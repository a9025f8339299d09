"""Blurry/sharp clips from a sharp video: a long exposure is the mean of consecutive frames in linear light.

Cameras that move between the frames, and frames in between, are the business of dblr_plugin.prepare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.data.linear_light import from_linear_light, to_linear_light
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, make_folder

__all__ = ['average_exposure', 'blur_frames', 'check_average', 'read_video', 'write_clip_pair', 'write_png']

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
            for number, frame in enumerate(container.decode(video=0)):
                if frame.is_corrupt:  # the decoder has made up what it could not read
                    raise DBLRError(f'{path}: frame {number} is damaged; get an intact copy, or cut the frame out')
                yield frame.to_ndarray(format='rgb24')
    except av.error.FFmpegError as error:
        raise DBLRError(f'{path}: cannot be decoded as video ({error.strerror})') from error


def average_exposure(lights: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the uint8 frame (h, w, 3) of a sensor that saw each of these frames of linear light equally long.

    Args:
        lights: One or more float32 frames (h, w, 3) in [0, 1]; consumed one by one, so they may be made on the way.
    """
    total: np.ndarray = np.zeros((), np.float32)
    count = 0
    for light in lights:
        total, count = total + light, count + 1
    return from_linear_light(total / np.float32(count))


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
    check_average(num_average)
    if len(frames) % 2 == 0 or len(frames) < num_average:
        raise DBLRError(
            f'an exposure of {num_average} frames needs an odd number of {num_average} or more, got {len(frames)}'
        )
    first = (len(frames) - num_average) // 2
    return average_exposure(to_linear_light(frame) for frame in frames[first : first + num_average])


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
    check_average(num_average)
    if stride < 1:
        raise DBLRError(f'clip {clip}: the stride must be at least 1, got {stride}')
    if len(frames) < num_average:
        raise DBLRError(f'clip {clip}: an exposure of {num_average} frames needs at least as many, got {len(frames)}')
    reach = num_average // 2
    centres = range(reach, len(frames) - reach, stride)
    for index, centre in enumerate(centres):
        exposure = frames[centre - reach : centre + reach + 1]
        write_png(Path(root_lq, clip, f'{index:08d}.png'), blur_frames(exposure, num_average))
        write_png(Path(root_gt, clip, f'{index:08d}.png'), frames[centre])
    return len(centres)


def check_average(num_average: int) -> None:
    """Raises DBLRError unless the number of averaged frames is odd and positive, so that one is in the middle."""
    if num_average < 1 or num_average % 2 == 0:
        raise DBLRError(f'the number of averaged frames must be odd, so that one is in the middle; got {num_average}')


def write_png(path: Path, frame: np.ndarray) -> None:
    """Writes a uint8 RGB frame (h, w, 3), creating the folder; the file appears when it is complete.

    Raises:
        DBLRError: The disk refuses.
    """
    _, data = cv2.imencode('.png', cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), _PNG_OPTIONS)
    make_folder(path.parent)
    with atomic_write(path) as partial:
        partial.write_bytes(data.data)
