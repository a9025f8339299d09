"""What a media file says of its content in tags and chapters, as it goes into another file."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.stream import Stream

__all__ = ['chapters_of_part', 'lost_tags', 'own_tags', 'track_tags']

# of a container that was something else: they would describe the output wrongly
_FOREIGN_METADATA = (
    'major_brand', 'minor_version', 'compatible_brands', 'encoder', 'duration', 'rotate', 'vendor_id', 'bps',
    'number_of_frames', 'number_of_bytes', 'alpha_mode', 'software',
)  # fmt: skip


def own_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Returns what is said of the content, not of how the source held it."""
    return {k: v for k, v in metadata.items() if k.lower() not in _FOREIGN_METADATA and not k.startswith('_STATISTICS')}


def track_tags(stream: Stream) -> dict[str, str]:
    """Returns what is said of a stream's content; MP4's titles of tracks are read by another name than written."""
    own = own_tags(stream.metadata)
    if 'name' in own:
        own.setdefault('title', own.pop('name'))
    return own


def lost_tags(source: Mapping[str, str], output: Mapping[str, str]) -> list[str]:
    """Returns the names of the source's tags that an output does not have."""
    there = {_base(name) for name in output}
    return [name for name in own_tags(source) if _base(name) not in there]


def chapters_of_part(source: InputContainer, start: Fraction | None, end: Fraction | None) -> list[dict[str, Any]]:
    """Returns the chapters from ``start`` to ``end``, in seconds, with times from the part's beginning."""
    chapters = []
    for chapter in source.chapters():
        unit = chapter['time_base']
        first = 0 if start is None else round(start / unit)
        begins, ends = max(chapter['start'], first), chapter['end']
        ends = ends if end is None else min(ends, round(end / unit))
        if begins < ends:
            chapters.append(chapter | {'start': begins - first, 'end': ends - first})
    return chapters


def _base(name: str) -> str:
    """Returns a tag's name without its language."""
    return name.lower().partition('-')[0]
