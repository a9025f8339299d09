"""Results on disk, each with a fingerprint of everything it depends on.

A result is reused as long as its fingerprint matches the current one.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from dblr_plugin.evaluation.scores import write_json
from dblr_plugin.files import make_folder, sha256_of
from dblr_plugin.measure.provenance import describe_data

__all__ = ['MethodFolder', 'code_checksums', 'data_checksums', 'fingerprint_of', 'keep', 'kept', 'sha256']


class MethodFolder:
    """The files of one method below ``benchmarks/<benchmark>/<method>``.

    Args:
        root: This folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.train_options = root / 'train.yml'
        self.test_options = root / 'test.yml'
        self.training = root / 'training.json'
        self.train_log = root / 'train.log'
        self.figures = root / 'figures.json'
        self.window_errors = root / 'window_errors.npz'
        self.frames = root / 'frames'
        self.complexity = root / 'complexity.json'
        self.failure = root / 'failure.json'
        self.traceback = root / 'failure.txt'

    def frame(self, clip: str, name: str) -> Path:
        """Returns the file of a restored frame."""
        return self.frames / clip / f'{name}.png'


def fingerprint_of(content: object) -> str:
    """SHA-256 of JSON-serialisable content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def keep(path: Path, fingerprint: str, content: dict) -> dict:
    """Writes a result atomically and returns it as :func:`kept` will: infinities and NaN as strings."""
    make_folder(path.parent)
    write_json(path, {'fingerprint': fingerprint, **content})
    written = kept(path, fingerprint)
    assert written is not None
    return written


def kept(path: Path, fingerprint: str | None = None) -> dict | None:
    """Reads a result; None if it is missing, damaged or has a different fingerprint."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return content if fingerprint in (None, content['fingerprint']) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def data_checksums(data_set: dict) -> list[str | None]:
    """Checksums of all files named in a data set's options."""
    roots = [data_set.get(key) for key in ('dataroot_lq', 'dataroot_gt')]
    listed = data_set.get('meta_info_file')
    return [_checksum(root) for root in roots if root] + ([sha256(Path(listed))] if listed else [])


def code_checksums(options: dict) -> list[str | None]:
    """Checksums of the Python files that options import."""
    return [sha256(Path(path)) for path in options.get('imports') or ()]


def sha256(path: Path | None) -> str | None:
    """SHA-256 of a file; None if it does not exist."""
    return sha256_of(path) if path is not None and path.is_file() else None


@cache
def _checksum(root: str) -> str:
    return describe_data(Path(root))['sha256']
