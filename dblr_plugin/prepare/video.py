"""Makes training and test clips from sharp video: finds shots, splits them, averages exposures, measures the blur."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dblr_plugin.data.cuts import find_shots, thumbnail
from dblr_plugin.data.flow import MIN_SIDE
from dblr_plugin.data.images import is_hidden, is_image, natural, refuse_undecodable
from dblr_plugin.errors import DBLRError, counted
from dblr_plugin.files import require_space
from dblr_plugin.prepare import tree
from dblr_plugin.prepare.exposures import LEAST_FRAMES, BlurSettings, Span, frame_paths, make_clips, split
from dblr_plugin.video import READ_SUFFIXES, is_video, open_source
from dblr_plugin.video.frames import eight_bits

__all__ = ['Footage', 'find_footage', 'prepare_video']

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footage:
    """A video: its name, and its file or folder of frames."""

    name: str
    path: Path

    def frames(self) -> Iterator[np.ndarray]:
        """Yields uint8 RGB frames (h, w, 3) in order, as ``dblr deblur`` reads them; raises DBLRError for damage."""
        with open_source(self.path) as source:
            for picture in source:
                if source.damaged:
                    raise DBLRError(
                        f'{self.path}: a frame at {picture.name} is damaged; get an intact copy, or remove that part'
                    )
                yield eight_bits(picture.pixels)


def find_footage(src: Path) -> list[Footage]:
    """Returns the videos at ``src``, in natural order of their names.

    Images beside video files are assumed to be thumbnails and ignored with a warning, as are videos in folders.

    Raises:
        DBLRError: There are no videos, two share a name, or a name is not UTF-8.
    """
    if src.is_file():
        return [_footage(src)]
    if not src.is_dir():
        raise DBLRError(f'{src} does not exist; give a video file, a folder of frames, or a folder of either')
    entries = sorted((path for path in src.iterdir() if not is_hidden(path.name)), key=lambda p: natural(p.name))
    images = sum(is_image(path.name) for path in entries)
    files = [path for path in entries if is_video(path.name)]
    if strange := next((path for path in files if not path.is_file()), None):
        raise DBLRError(f'{strange} is not a file; remove it')
    found = [_footage(path) for path in files]
    if images and found:
        _log.warning('%s: left out %s beside %s', src, counted(images, 'image'), counted(len(found), 'video'))
    elif images:
        return [_footage(src)]
    folders = {path: [file.name for file in path.iterdir()] for path in entries if path.is_dir()}
    deeper = [path for path, names in folders.items() if any(map(is_video, names))]  # their images are thumbnails too
    found += [_footage(path) for path, names in folders.items() if path not in deeper and any(map(is_image, names))]
    if deeper and found:
        inner = ', '.join(path.name for path in deeper)
        _log.warning('%s: left out the videos in %s; give these folders by themselves', src, inner)
    if not found:
        suffixes = ', '.join(READ_SUFFIXES)
        raise DBLRError(
            f'{src} holds neither images, nor folders of images, nor videos ({suffixes}); folders further down are not '
            'searched'
        )
    named: dict[str, Footage] = {}
    for footage in found:
        if footage.name in named:
            raise DBLRError(
                f"{named[footage.name].path} and {footage.path} are both named '{footage.name}'; rename one"
            )
        named[footage.name] = footage
    return found


def _footage(path: Path) -> Footage:
    refuse_undecodable(path.parent, [path.name])
    return Footage(path.stem if path.is_file() else path.resolve().name, path)


KIND = 'video'
PNG_OVERHEAD = 1.01  # uncompressed pixels, a filter byte per row, and chunk headers


@dataclass(frozen=True)
class _Source:
    """A scanned video: (height, width), shots, clips to make, and notes on skipped shots."""

    footage: Footage
    size: tuple[int, int]
    shots: list[range]
    spans: list[Span]
    skipped: list[str]


def prepare_video(
    src: Path, dst: Path, recipe: BlurSettings, databases: Sequence[tree.DatabaseKind] = ()
) -> tree.Prepared:
    """Makes blurry and sharp clips in the tree ``dst``, resuming an earlier run with the same recipe.

    Args:
        src: A sharp video file, a folder of frames, or a folder of several of either.
        dst: The tree's folder. ``dataset.json`` appears there once everything is in place.
        recipe: How the clips are made.
        databases: Database formats to write for each folder of clips.

    Raises:
        DBLRError: There is no usable footage, ``dst`` contains something else, or the disk is full.
    """
    videos = find_footage(src)
    variant = f'of {src.resolve().name} ({_bytes(videos)} bytes): {recipe}'
    tree.refuse_others(dst, KIND, variant)
    held = tree.complete(dst, KIND, variant)
    if held is not None:
        return tree.Prepared(held, tree.write_databases(dst, databases), was_complete=True)
    sources = [_looked_through(footage, recipe) for footage in videos]
    for line in (line for source in sources for line in source.skipped):
        _log.warning('%s', line)
    files = {str(path.relative_to(dst)): size for source in sources for path, size in _planned(dst, source)}
    if not files:
        raise DBLRError(
            f'{src} has no shot of {recipe.least_shot} frames, from which {LEAST_FRAMES} exposures of '
            f'{max(recipe.average)} could be made to train on; average fewer, or lower the stride'
        )
    tree.refuse_unplanned(dst, files, KIND)
    tree.begin(dst, KIND, variant)
    missing = sum(size for path, size in files.items() if not (dst / path).exists())
    require_space(dst, missing + tree.bytes_needed(dst, databases, files), 'the tree')
    clips = []
    for source in sources:
        if source.spans:
            frames = source.footage.frames()
            clips += make_clips(dst, frames, source.spans, recipe, source.footage.name)
    written = tree.write_databases(dst, databases)
    content = tree.finish(dst, KIND, variant, clips, _details(src, sources, recipe))
    return tree.Prepared(content, written, was_complete=False)


def _looked_through(footage: Footage, recipe: BlurSettings) -> _Source:
    """Decodes a video once to find its size and shots."""
    sizes: list[tuple[int, int]] = []

    def small() -> Iterator[np.ndarray]:
        for frame in footage.frames():
            sizes.append(frame.shape[:2])
            yield thumbnail(frame)

    shots = find_shots(list(tqdm(small(), desc=f'looking through {footage.name}', unit='frame')))
    if recipe.in_between and min(sizes[0]) < MIN_SIDE:
        raise DBLRError(
            f'{footage.path} is {sizes[0][1]}x{sizes[0][0]} (w x h), too small for in-betweens; leave them out'
        )
    return _Source(footage, sizes[0], shots, *split(footage.name, shots, recipe))


def _planned(dst: Path, source: _Source) -> Iterator[tuple[Path, int]]:
    """Yields each file of a video's clips, and its approximate size in bytes."""
    size = round(source.size[0] * source.size[1] * 3 * PNG_OVERHEAD) + 1024
    for span in source.spans:
        for index in range(len(span.centres)):
            yield from ((path, size) for path in frame_paths(dst, span, index).values())


def _details(src: Path, sources: list[_Source], recipe: BlurSettings) -> dict[str, Any]:
    """Returns the entries of ``dataset.json`` other than counts."""
    details = {
        'source': str(src.resolve()),
        'placed': 'made',
        'recipe': asdict(recipe),
        'shots': {source.footage.name: [[shot[0], shot[-1]] for shot in source.shots] for source in sources},
    }
    skipped = [line for source in sources for line in source.skipped]
    return details | ({'too_short': skipped} if skipped else {})


def _bytes(videos: list[Footage]) -> int:
    """Returns the total size of all videos and frames in bytes, used to detect that a source was replaced."""
    files = (
        path
        for video in videos
        for path in ([video.path] if video.path.is_file() else filter(_is_frame, video.path.iterdir()))
    )
    return sum(path.stat().st_size for path in files)


def _is_frame(path: Path) -> bool:
    return is_image(path.name) and path.is_file()  # file managers leave files of their own
