"""Finds a dataset's clips and frames, pairs them by name, and validates them before any work starts.

Both text formats are BasicSR's: the list of clips to use, and the ``meta_info.txt`` inside an LMDB database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dblr_plugin.data.images import IMAGE_SUFFIXES, is_image, natural
from dblr_plugin.errors import DBLRError, counted, nearest, raise_faults
from dblr_plugin.files import name_fault
from dblr_plugin.threads import DISK_THREADS

__all__ = [
    'ClipPair', 'ListedClip', 'index_pairs', 'label', 'positive_int', 'read_clip_list', 'read_lmdb_meta', 'required',
    'window_of',
]  # fmt: skip

# names may contain spaces, so both patterns are anchored at the numbers that end a line
_SIZE = r'\((?P<h>\d{1,9}), ?(?P<w>\d{1,9}), ?\d+\)'  # int() rejects strings of thousands of digits
_CLIP_LINE = re.compile(rf'(?P<clip>\S.*?) +(?P<count>\d{{1,9}}) +{_SIZE}')
_FRAME_LINE = re.compile(rf'(?P<clip>\S.*)/(?P<frame>[^/]+)\.\w+ {_SIZE} \d+')


@dataclass(frozen=True)
class ListedClip:
    """One line ``clip frames (h,w,c)`` of a clip list; ``where`` is ``file:line``."""

    name: str
    count: int
    size: tuple[int, int]
    where: str


def read_clip_list(path: str | Path, faults: list[str]) -> list[ListedClip]:
    """Reads a ``meta_info_file``: one clip per line, ``000 100 (720,1280,3)``; blank lines are ignored.

    Malformed and duplicate lines are skipped and reported in ``faults``, each with its ``file:line``. Raises DBLRError
    if the file cannot be read.
    """
    listed: dict[str, ListedClip] = {}
    for where, line in _numbered_lines(path):
        match = _CLIP_LINE.fullmatch(line)
        if match is None:
            faults.append(f"{where}: '{line}' is not 'clip frames (h,w,c)', such as '000 100 (720,1280,3)'")
        elif fault := name_fault(match['clip']):
            faults.append(f'{where}: clip {fault}; rename the clip')
        elif match['clip'] in listed:
            faults.append(f"{where}: clip '{match['clip']}' is listed twice; remove one of the lines")
        else:
            size = int(match['h']), int(match['w'])
            listed[match['clip']] = ListedClip(match['clip'], int(match['count']), size, where)
    return list(listed.values())


def read_lmdb_meta(path: str | Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Reads a database's ``meta_info.txt``: one frame per line, ``000/00000000.png (720,1280,3) 1``.

    Returns clip name -> frame name -> (height, width), in natural order. Raises DBLRError if the file cannot be read,
    or a line is malformed or repeats a frame.
    """
    clips: dict[str, dict[str, tuple[int, int]]] = {}
    for where, line in _numbered_lines(path):
        match = _FRAME_LINE.fullmatch(line)
        if match is None:
            raise DBLRError(f"{where}: '{line}' is not 'clip/frame.ext (h,w,c) level'; write the database again")
        if fault := name_fault(f'{match["clip"]}/{match["frame"]}'):
            raise DBLRError(f'{where}: {fault}; write the database again, under other names')
        frames = clips.setdefault(match['clip'], {})
        if match['frame'] in frames:
            raise DBLRError(f"{where}: '{match['clip']}/{match['frame']}' is listed twice; write the database again")
        frames[match['frame']] = int(match['h']), int(match['w'])
    return {
        clip: {frame: clips[clip][frame] for frame in sorted(clips[clip], key=natural)}
        for clip in sorted(clips, key=natural)
    }


def _numbered_lines(path: str | Path) -> list[tuple[str, str]]:
    """Returns (``file:line``, stripped text) for each non-blank line."""
    try:
        text = Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise DBLRError(f'{path} cannot be read ({error}); check the path') from error
    lines = ((f'{path}:{number}', line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(where, line) for where, line in lines if line]


def label(opt: Mapping[str, Any]) -> str:
    """Returns the name that messages use for the dataset with these options."""
    return f"dataset '{opt.get('name', opt.get('type', 'unnamed'))}'"


def required(opt: Mapping[str, Any], key: str) -> Any:
    """Returns ``opt[key]``; raises DBLRError if it is missing or null."""
    if opt.get(key) is None:
        raise DBLRError(f'{label(opt)}: {key} is missing; add it to the options')
    return opt[key]


def positive_int(opt: Mapping[str, Any], key: str, value: Any) -> int:
    """Returns ``value``, the option ``key``; raises DBLRError unless it is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DBLRError(f'{label(opt)}: {key} is {value!r}; it must be a whole number from 1')
    return value


def window_of(opt: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the frames in a window, 5 by default, and whether it ends with the one to restore.

    Raises:
        DBLRError: The number is not odd, as a centre needs; or the options ask for super-resolution, or to reverse
            windows whose last frame is the one to restore.
    """
    if opt.get('scale', 1) != 1:
        raise DBLRError(f'{label(opt)}: scale is {opt["scale"]}; deblurring keeps the size, so it must be 1')
    num_frame = positive_int(opt, 'num_frame', opt.get('num_frame', 5))
    if num_frame % 2 == 0:
        raise DBLRError(f'{label(opt)}: num_frame is {num_frame}; it must be odd, such as {num_frame + 1}')
    causal = bool(opt.get('causal', False))
    if causal and opt.get('random_reverse'):
        raise DBLRError(
            f'{label(opt)}: random_reverse would put another frame at the end of causal windows; set it to false'
        )
    return num_frame, causal


FrameSize = tuple[int, int]
Clips = dict[str, tuple[str, ...]]


class IndexedFrames(Protocol):
    """The interface that pairing needs; frame stores implement it, as does anything that is read like one."""

    root: Path

    def clips(self) -> Clips:
        """Returns clip name -> frame names."""

    def where(self, clip: str, frame: str) -> str:
        """Returns the name that messages use for a frame."""

    def inspect(self, clip: str, frame: str) -> FrameSize:
        """Returns (height, width); raises DBLRError for a damaged frame."""


@dataclass(frozen=True)
class ClipPair:
    """A clip with matching frames on both sides: the frame names in order, and their common (height, width)."""

    name: str
    frames: tuple[str, ...]
    size: FrameSize


def index_pairs(
    lq_store: IndexedFrames, gt_store: IndexedFrames | None = None, meta_info_file: str | Path | None = None
) -> list[ClipPair]:
    """Pairs the clips and frames of two stores by name and validates each of them.

    Suffixes are ignored, so a JPEG can pair with a PNG. Only the header and the end of each file are read, no pixels.

    Args:
        lq_store, gt_store: The blurry frames, and the sharp ones or None.
        meta_info_file: Optional list of the clips to use, in lines ``clip frames (h,w,c)``; all others are ignored.

    Returns:
        The clips, in natural order of their names.

    Raises:
        DBLRError: There are faults: missing, extra, empty, truncated or unreadable clips and frames, mismatched sizes,
            or a meta_info_file that does not match. One message covers them all, up to ten in full.
    """
    faults: list[str] = []
    stores = [lq_store] if gt_store is None else [lq_store, gt_store]
    listed = None if meta_info_file is None else {c.name: c for c in read_clip_list(meta_info_file, faults)}
    clips = [_chosen(store, listed, faults) for store in stores]
    if len(clips) == 2:
        _compare_names(stores, clips, faults)
    common = [name for name in clips[0] if name in clips[-1]]
    sizes = [
        _inspect(store, {name: side[name] for name in common}, faults)
        for store, side in zip(stores, clips, strict=True)
    ]
    pairs = [
        ClipPair(name, clips[0][name], agreed)
        for name in common
        if (agreed := _agreed_size(name, stores, sizes, listed, faults)) is not None
    ]
    raise_faults(faults, 'data')
    if not pairs:
        raise DBLRError(f'{meta_info_file} lists no clips; write lines such as "000 100 (720,1280,3)"')
    return pairs


def _chosen(store: IndexedFrames, listed: Mapping[str, ListedClip] | None, faults: list[str]) -> Clips:
    """Returns the store's clips to use; reports empty clips, and listed clips that do not match."""
    clips = store.clips()
    for name, line in (listed or {}).items():
        if name not in clips:
            faults.append(f"{line.where}: clip '{name}' is not in {store.root}{nearest(name, clips)}")
        elif line.count != len(clips[name]):
            found = len(clips[name])
            wanted = counted(line.count, 'frame')
            faults.append(f"{line.where}: clip '{name}' should have {wanted}; {store.root} has {found}")
    chosen = {name: frames for name, frames in clips.items() if listed is None or name in listed}
    faults.extend(_no_images(store.root, name) for name, frames in chosen.items() if not frames)
    return {name: frames for name, frames in chosen.items() if frames}


def _no_images(root: Path, clip: str) -> str:
    """Returns the fault of a clip without images, which may lie one level deeper."""
    deeper = next((path.parent for path in (root / clip).glob('*/*') if is_image(path.name)), None)
    if deeper is None:
        return f"clip '{clip}' in {root} has no images ({', '.join(IMAGE_SUFFIXES)}); convert its frames, or remove it"
    return f"clip '{clip}' in {root} has no images, but {deeper} has; move such folders up, into {root}"


def _compare_names(stores: list[IndexedFrames], clips: list[Clips], faults: list[str]) -> None:
    """Reports clips that only one side has and, in clips that both have, frames that only one side has."""
    for (here, there), (ours, theirs) in (((0, 1), clips), ((1, 0), clips[::-1])):
        source, target = stores[here].root, stores[there].root
        for name, frames in ours.items():
            if name not in theirs:
                # empty clips, and listed clips that do not exist, have been reported already
                if name not in stores[there].clips():
                    hint = nearest(name, set(theirs) - set(ours))
                    faults.append(f"clip '{name}' of {source} is missing from {target}{hint or '; add or remove it'}")
                continue
            known = set(theirs[name])
            faults.extend(
                f"frame '{name}/{frame}' of {source} is missing from {target}; add it there or remove it here"
                for frame in frames
                if frame not in known
            )


def _inspect(store: IndexedFrames, clips: Clips, faults: list[str]) -> dict[str, dict[str, FrameSize]]:
    """Inspects every frame; returns the sizes of intact ones by clip and frame, and reports the others."""

    def size_or_fault(key: tuple[str, str]) -> FrameSize | str:
        try:
            return store.inspect(*key)
        except DBLRError as error:
            return str(error)

    keys = [(name, frame) for name, frames in clips.items() for frame in frames]
    sizes: dict[str, dict[str, FrameSize]] = {name: {} for name in clips}
    with ThreadPoolExecutor(DISK_THREADS) as pool:
        for (name, frame), found in zip(keys, pool.map(size_or_fault, keys), strict=True):
            if isinstance(found, str):
                faults.append(found)
            else:
                sizes[name][frame] = found
    return sizes


def _agreed_size(
    name: str,
    stores: list[IndexedFrames],
    sizes: list[dict[str, dict[str, FrameSize]]],
    listed: Mapping[str, ListedClip] | None,
    faults: list[str],
) -> FrameSize | None:
    """Returns the size shared by a clip's frames on both sides and the clip list; reports a fault if they differ."""
    expected, source = (listed[name].size, listed[name].where) if listed else (None, '')
    for store, side in zip(stores, sizes, strict=True):
        for frame, size in side[name].items():
            if expected is None:
                expected, source = size, store.where(name, frame)
            elif size != expected:
                faults.append(
                    f"clip '{name}': {store.where(name, frame)} is {_text(size)}, but {source} says {_text(expected)}; "
                    'all its frames must have one size'
                )
                return None
    return expected


def _text(size: FrameSize) -> str:
    return f'{size[1]}x{size[0]} (w x h)'
