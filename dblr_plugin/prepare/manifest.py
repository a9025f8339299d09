"""``dataset.json``, written last: it marks a prepared dataset as complete and describes its contents.

During preparation, ``.unfinished.json`` identifies the dataset, so that the same one can be resumed and others are
rejected.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dblr_plugin.data.images import is_image, natural
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import write_whole
from dblr_plugin.prepare.data_sets import PARTS
from dblr_plugin.version import __version__

__all__ = ['TreeClip', 'begin', 'complete', 'files_below', 'finish', 'refuse_others', 'roots']

MANIFEST = 'dataset.json'
UNFINISHED = '.unfinished.json'
SIDES = ('lq', 'gt')


@dataclass(frozen=True)
class TreeClip:
    """A clip in the tree: number of frames on each side, (height, width), and PSNR of the blurry frames."""

    part: str
    name: str
    frames: int
    size: tuple[int, int]
    psnr: float | None = None


def refuse_others(dst: Path, kind: str, variant: str) -> None:
    """Raises DBLRError if ``dst`` contains another dataset, another variant of it, or something else."""
    if not dst.exists():
        return
    held = _read(dst / MANIFEST) or _read(dst / UNFINISHED)
    if not dst.is_dir() or (held is None and any(dst.iterdir())):
        raise DBLRError(f'{dst} is neither empty nor a prepared data set; give a new folder')
    if held is not None and (held.get('kind'), held.get('variant')) != (kind, variant):
        wanted = {'kind': kind, 'variant': variant}
        raise DBLRError(f'{dst} holds {_name(held)}, not {_name(wanted)}; give another folder, or remove it')


def begin(dst: Path, kind: str, variant: str) -> None:
    """Marks ``dst`` as being prepared and no longer complete; creates it if needed."""
    write_whole(dst / UNFINISHED, json.dumps({'kind': kind, 'variant': variant}), sync=True)
    (dst / MANIFEST).unlink(missing_ok=True)


def finish(
    dst: Path,
    kind: str,
    variant: str,
    clips: Iterable[TreeClip],
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes ``meta_info_<part>.txt`` for each part, then ``dataset.json``.

    Args:
        dst: The tree.
        kind: The dataset.
        variant: Its variant, or ``''``.
        clips: All its clips.
        details: Additional entries, at the top level.

    Returns:
        The content of ``dataset.json``.
    """
    clips = sorted(clips, key=lambda clip: natural(clip.name))
    parts = {part: [clip for clip in clips if clip.part == part] for part in PARTS}
    files = files_below(dst)
    for part, members in parts.items():
        if members:
            lines = [f'{clip.name} {clip.frames} ({clip.size[0]},{clip.size[1]},3)\n' for clip in members]
            write_whole(dst / f'meta_info_{part}.txt', ''.join(lines), sync=True)
    content = {
        'kind': kind,
        'variant': variant,
        'version': __version__,
        **details,
        'parts': {part: _summary(members, part, files) for part, members in parts.items() if members},
        'files': len(files),
        'sha256': _checksum(files),
    }
    write_whole(dst / MANIFEST, json.dumps(content, indent=2) + '\n', sync=True)
    (dst / UNFINISHED).unlink(missing_ok=True)
    return content


def complete(dst: Path, kind: str, variant: str) -> dict[str, Any] | None:
    """Returns the manifest if ``dst`` is this dataset, no clip was left out, and all file sizes match; else None."""
    held = _read(dst / MANIFEST)
    if held is None or (held.get('kind'), held.get('variant')) != (kind, variant) or held.get('left_out'):
        return None
    return held if held.get('sha256') == _checksum(files_below(dst)) else None


def roots(dst: Path) -> list[Path]:
    """Returns the folders of clips in a tree: ``train/lq``, ``train/gt``, ``test/lq``, ``test/gt``, if they exist."""
    return [root for part in PARTS for side in SIDES if (root := dst / part / side).is_dir()]


def files_below(dst: Path) -> dict[str, int]:
    """Returns path within ``dst`` -> size in bytes, for all frames of a tree."""
    return {
        f'{root.parent.name}/{root.name}/{clip.name}/{entry.name}': entry.stat().st_size
        for root in roots(dst)
        for clip in os.scandir(root)
        if clip.is_dir()
        for entry in os.scandir(clip)
        if is_image(entry.name) and entry.is_file()  # a dangling link is not a frame
    }


def _summary(clips: list[TreeClip], part: str, files: Mapping[str, int]) -> dict[str, Any]:
    """Returns the counts, sizes and bytes of one part."""
    sizes = Counter(f'{clip.size[1]}x{clip.size[0]}' for clip in clips)
    summary = {
        'clips': len(clips),
        'frames': sum(clip.frames for clip in clips),
        'sizes': dict(sizes.most_common()),
        'ground_truth': any(path.startswith(f'{part}/gt/') for path in files),
        'bytes': sum(size for path, size in files.items() if path.startswith(f'{part}/')),
    }
    psnr = {clip.name: clip.psnr for clip in clips if clip.psnr is not None}
    return summary | ({'blurry_psnr': psnr} if psnr else {})


def _checksum(files: Mapping[str, int]) -> str:
    """Returns the SHA-256 of the sorted lines ``path bytes``; it covers names and sizes, not pixels."""
    lines = ''.join(f'{path} {size}\n' for path, size in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _name(held: Mapping[str, Any]) -> str:
    return f"'{' '.join(filter(None, (str(held.get('kind')), str(held.get('variant')))))}'"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
