"""Broken modules and packages, and what the doctor says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dblr_plugin.doctor import FAULT, Finding

__all__ = ['faults', 'write_metadata', 'write_module']


def write_module(folder: Path, name: str, code: str) -> None:
    """Puts a package there that runs ``code`` when it is imported."""
    (folder / name).mkdir()
    (folder / name / '__init__.py').write_text(code)


def write_metadata(folder: Path, name: str, version: str, *lines: str) -> None:
    """Puts there what pip leaves of a package that it has installed."""
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    text = '\n'.join(['Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}', *lines])
    (info / 'METADATA').write_text(text + '\n')


def faults(findings: Iterable[Finding]) -> str:
    """Texts, cures and commands of the faults among findings."""
    return '\n'.join('\n'.join((f.text, f.cure, *f.commands)) for f in findings if f.level == FAULT)
