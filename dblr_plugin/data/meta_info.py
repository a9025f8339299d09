"""BasicSR's two text formats: the list of clips to use, and the ``meta_info.txt`` inside an LMDB database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dblr_plugin.data.images import natural
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import name_fault

__all__ = ['ListedClip', 'read_clip_list', 'read_lmdb_meta']

# names may contain spaces: both patterns are anchored at the figures that end a line
_SIZE = r'\((?P<h>\d{1,9}), ?(?P<w>\d{1,9}), ?\d+\)'  # Python converts no text of thousands of digits
_CLIP_LINE = re.compile(rf'(?P<clip>\S.*?) +(?P<count>\d{{1,9}}) +{_SIZE}')
_FRAME_LINE = re.compile(rf'(?P<clip>\S.*)/(?P<frame>[^/]+)\.\w+ {_SIZE} \d+')


@dataclass(frozen=True)
class ListedClip:
    """One line ``clip frames (h,w,c)`` of a list of clips; ``where`` is ``file:line``."""

    name: str
    count: int
    size: tuple[int, int]
    where: str


def read_clip_list(path: str | Path, faults: list[str]) -> list[ListedClip]:
    """Reads a ``meta_info_file``: one clip a line, ``000 100 (720,1280,3)``, blank lines ignored.

    Malformed and repeated lines are appended to ``faults``, each with its ``file:line``, and left out.

    Raises:
        DBLRError: The file cannot be read.
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
    """Reads a database's ``meta_info.txt``: one frame a line, ``000/00000000.png (720,1280,3) 1``.

    Returns:
        Clip name -> frame name -> (height, width); clips and frames in natural order.

    Raises:
        DBLRError: The file cannot be read, or a line is malformed or repeats a frame.
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
    """Returns (``file:line``, stripped text) of the lines that are not blank."""
    try:
        text = Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise DBLRError(f'{path} cannot be read ({error}); check the path') from error
    lines = ((f'{path}:{number}', line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(where, line) for where, line in lines if line]
