"""What FFmpeg does not handle in Matroska files: truncation, and the pixel aspect ratio."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

__all__ = ['reaches_its_end', 'write_display_size']

_SEGMENT, _SEEK_HEAD, _VOID, _INFO, _TRACKS = 0x18538067, 0x114D9B74, 0xEC, 0x1549A966, 0x1654AE6B
_SUM, _DISPLAY_UNIT = 0xBF, 0x54B2
_SEEK, _SEEK_ID, _SEEK_POSITION = 0x4DBB, 0x53AB, 0x53AC
_TRACK, _VIDEO, _WIDTH, _HEIGHT, _DISPLAY_WIDTH, _DISPLAY_HEIGHT = 0xAE, 0xE0, 0xB0, 0xBA, 0x54B0, 0x54BA

# Bytes at the start of a file in which its headers are looked for; attached images may follow them.
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class _Element:
    """One element: its id, its start, and the start and end of its content; ``end`` is None for an unknown size."""

    id: int
    start: int
    content: int
    end: int | None


def reaches_its_end(path: Path) -> bool:
    """Returns whether a file is as long as its header says; False if it does not say, or is not Matroska."""
    with open(path, 'rb') as file:
        head = file.read(4096)
    ends = [element.end for element in _elements(head, 0, len(head)) if element.id == _SEGMENT]
    return bool(ends) and ends[0] is not None and ends[0] <= os.path.getsize(path)


def write_display_size(file: BinaryIO, aspect: Fraction) -> bool:
    """Writes the pixel aspect ratio into a complete file with one video track.

    FFmpeg takes it from a field that PyAV cannot set. The space comes from the padding that FFmpeg leaves before the
    headers, which are moved into it; everything else stays in place.

    Args:
        file: Open for reading and writing.
        aspect: The pixel aspect ratio, width to height.

    Returns:
        Whether it was written, which requires the layout that FFmpeg writes.
    """
    data = file.read(_HEAD_BYTES)
    segment = _find(data, 0, len(data), _SEGMENT)
    parts = {} if segment is None else {e.id: e for e in _elements(data, segment.content, len(data))}
    order = [parts.get(i) for i in (_SEEK_HEAD, _VOID, _INFO, _TRACKS)]
    if None in order or any(a.end != b.start for a, b in itertools.pairwise(order)):
        return False
    seek, void, info, tracks = order
    if tracks.end > len(data):
        return False
    grown = _with_display_size(data[tracks.start : tracks.end], aspect)
    room = len(grown) - (tracks.end - tracks.start)
    left = void.end - void.start - room
    if left < 9:
        return False
    moved = {_INFO: info.start - room - segment.content, _TRACKS: tracks.start - room - segment.content}
    index = _with_positions(data[seek.start : seek.end], moved)
    file.seek(seek.start)
    file.write(index + b'\xec' + _size(left - 9, 8) + bytes(left - 9) + data[info.start : info.end] + grown)
    return True


def _with_display_size(tracks: bytes, aspect: Fraction) -> bytes:
    """Returns the Tracks element with the display size of the video."""
    root = _find(tracks, 0, len(tracks), _TRACKS)
    for track in _elements(tracks, root.content, root.end):
        video = _find(tracks, track.content, track.end, _VIDEO) if track.id == _TRACK else None
        if video is None:
            continue
        inside = list(_elements(tracks, video.content, video.end))
        fields = {e.id: int.from_bytes(tracks[e.content : e.end], 'big') for e in inside}
        width, height = fields[_WIDTH], fields[_HEIGHT]
        kept = b''.join(
            tracks[e.start : e.end] for e in inside if e.id not in (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
        )
        shape = _number(_DISPLAY_WIDTH, round(width * aspect)) + _number(_DISPLAY_HEIGHT, height)
        wide = _element(_VIDEO, shape + kept)
        entry = _element(_TRACK, tracks[track.content : video.start] + wide + tracks[video.end : track.end])
        return _element(
            _TRACKS, _without_sum(tracks[root.content : track.start]) + entry + tracks[track.end : root.end]
        )
    return tracks


def _without_sum(content: bytes) -> bytes:
    """Returns content without its checksum, which would no longer match."""
    return b''.join(content[e.start : e.end] for e in _elements(content, 0, len(content)) if e.id != _SUM)


def _with_positions(index: bytes, moved: dict[int, int]) -> bytes:
    """Returns the SeekHead element with new positions, in fields of the same length."""
    changed = bytearray(index)
    root = _find(index, 0, len(index), _SEEK_HEAD)
    for seek in _elements(index, root.content, root.end):
        if seek.id == _SUM:
            changed[seek.start] = _VOID
        if seek.id != _SEEK:
            continue
        name = _find(index, seek.content, seek.end, _SEEK_ID)
        position = _find(index, seek.content, seek.end, _SEEK_POSITION)
        new = moved.get(int.from_bytes(index[name.content : name.end], 'big'))
        if new is not None:
            changed[position.content : position.end] = new.to_bytes(position.end - position.content, 'big')
    return bytes(changed)


def _elements(data: bytes, start: int, end: int) -> Iterator[_Element]:
    """Yields the elements of one level that begin in ``data``; the last may end beyond it."""
    while start < end:
        identity = _variable(data, start, keep_marker=True)
        size = None if identity is None else _variable(data, identity[1], keep_marker=False)
        if size is None:
            return
        length, content = size
        unknown = length == (1 << 7 * (content - identity[1])) - 1
        element = _Element(identity[0], start, content, None if unknown else content + length)
        yield element
        if element.end is None:
            return
        start = element.end


def _find(data: bytes, start: int, end: int, identity: int) -> _Element | None:
    return next((element for element in _elements(data, start, end) if element.id == identity), None)


def _variable(data: bytes, at: int, keep_marker: bool) -> tuple[int, int] | None:
    """Returns a variable-length number and the position after it; None if there is none."""
    if at >= len(data) or not data[at]:
        return None
    length = 9 - data[at].bit_length()
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], 'big')
    return (value if keep_marker else value - (1 << 7 * length)), at + length


def _element(identity: int, content: bytes) -> bytes:
    return identity.to_bytes((identity.bit_length() + 7) // 8, 'big') + _size(len(content), 4) + content


def _number(identity: int, value: int) -> bytes:
    return _element(identity, value.to_bytes(3, 'big'))


def _size(value: int, length: int) -> bytes:
    return (value | 1 << 7 * length).to_bytes(length, 'big')
