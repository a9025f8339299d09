"""The table that is printed after a preparation."""

from __future__ import annotations

import re
from pathlib import Path

from dblr_plugin.prepare.layout import Prepared

__all__ = ['summary']

MAX_SHOWN = 10


def summary(dst: Path, prepared: Prepared) -> str:
    """Returns a few lines on what ``dst`` holds now: parts, clips, frames, sizes, databases, and what is missing."""
    content = prepared.manifest
    name = ' '.join(filter(None, (content['kind'], content['variant'])))
    state = 'was complete already; verified' if prepared.was_complete else 'prepared'
    rows: list[tuple[str, ...]] = [('part', 'clips', 'frames', 'ground truth', 'bytes', 'clips of size (w x h)')]
    for part, facts in content['parts'].items():
        sizes = ', '.join(f'{count} of {size}' for size, count in facts['sizes'].items())
        truth = 'yes' if facts['ground_truth'] else 'no'
        rows.append((part, str(facts['clips']), str(facts['frames']), truth, f'{facts["bytes"]:,}', sizes))
    lines = [f'{dst}: {name}, {state}', *_table(rows), *_psnr_lines(content['parts'])]
    lines += [f'{path}: written or kept' for path in prepared.databases]
    lines.append(f'{dst / "dataset.json"}: {content["files"]} files, sha256 {content["sha256"]}')
    return '\n'.join(lines + _left_out_lines(content.get('left_out') or content.get('too_short') or []))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Aligns columns: words to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    figures = [all(re.fullmatch('[0-9.,]+', cell) for cell in column) for column in zip(*rows[1:], strict=True)]
    lines = (
        '  '.join(c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, figures, strict=True))
        for row in rows
    )
    return [f'  {line}'.rstrip() for line in lines]


def _psnr_lines(parts: dict[str, dict]) -> list[str]:
    """One row for each clip whose blurry frames were made and measured."""
    rows = [
        (f'{part}/{clip}', f'{psnr:.2f}')
        for part, facts in parts.items()
        for clip, psnr in facts.get('blurry_psnr', {}).items()
    ]
    return _table([('clip', 'PSNR of the blurry frames (dB)'), *rows]) if rows else []


def _left_out_lines(faults: list[str]) -> list[str]:
    if not faults:
        return []
    more = [f'  and {len(faults) - MAX_SHOWN} more, in dataset.json'] if len(faults) > MAX_SHOWN else []
    return ['left out, because of:', *(f'  {fault}' for fault in faults[:MAX_SHOWN]), *more]
