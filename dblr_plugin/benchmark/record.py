"""Results on disk, each with a fingerprint of everything it depends on, and the provenance of a report.

A result is reused as long as its fingerprint matches the current one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.scores import write_json
from dblr_plugin.files import make_folder, sha256_of
from dblr_plugin.prepare.tree import MANIFEST, complete, roots
from dblr_plugin.processes import usable_cores

__all__ = [
    'MethodFolder', 'code_checksums', 'data_checksums', 'describe_commit', 'describe_data', 'describe_device',
    'describe_machine', 'describe_run', 'describe_versions', 'fingerprint_of', 'keep', 'kept', 'sha256',
]  # fmt: skip

_PACKAGES = (
    'dblr_plugin', 'basicsr', 'torch', 'torchvision', 'numpy', 'opencv-python', 'openvino', 'mnn', 'lpips', 'mmengine',
)  # fmt: skip


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
        #: Commands that repeat the training and the test
        self.train_command = f'dblr train -opt {shlex.quote(str(self.train_options))}'
        self.test_command = f'dblr test -opt {shlex.quote(str(self.test_options))}'

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


def kept(path: Path, fingerprint: str) -> dict | None:
    """Reads a result; None if it is missing, damaged or has a different fingerprint."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return content if content['fingerprint'] == fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def data_checksums(data_set: dict) -> list[str | None]:
    """Checksums of all files named in a data set's options."""
    roots = [data_set.get(key) for key in ('dataroot_lq', 'dataroot_gt')]
    listed = data_set.get('meta_info_file')
    return [_checksum(root) for root in roots if root] + ([sha256(Path(listed))] if listed else [])


@cache
def _checksum(root: str) -> str:
    return describe_data(Path(root))['sha256']


def code_checksums(options: dict) -> list[str | None]:
    """Checksums of the Python files that options import."""
    return [sha256(Path(path)) for path in options.get('imports') or ()]


def sha256(path: Path | None) -> str | None:
    """SHA-256 of a file; None if it does not exist."""
    return sha256_of(path) if path is not None and path.is_file() else None


# ---------------------------------------------------------------------- provenance


def describe_run(
    files: Iterable[Path], data: Mapping[str, Path], device: torch.device, commands: Iterable[str]
) -> dict[str, Any]:
    """Returns a report's provenance, ready for JSON.

    Args:
        files: Option files and weights; they exist.
        data: Name -> the folder or database that was read.
        device: Where the methods ran.
        commands: Commands that reproduce the figures.

    Raises:
        DBLRError: A folder of ``data`` is missing or empty.
    """
    return {
        'commands': list(commands),
        'files': [{'path': str(path), 'sha256': sha256_of(path)} for path in files],
        'data': {name: describe_data(root) for name, root in data.items()},
        'device': describe_device(device),
        'machine': describe_machine(),
        'versions': describe_versions(_PACKAGES),
        'commit': describe_commit(),
    }


def describe_data(root: Path) -> dict[str, Any]:
    """Returns a data set's checksum and what it covers.

    Args:
        root: A folder of clips, or a database.

    Returns:
        ``path``, ``sha256`` and ``of``, what the checksum covers. For a folder in a complete tree of ``dblr prepare``,
        it is the checksum of the whole tree from ``dataset.json``, together with its ``kind``, ``variant`` and
        ``version``. Otherwise it covers the sorted lines ``path bytes`` of all files: names and sizes, not pixels.

    Raises:
        DBLRError: There are no files.
    """
    root = root.absolute()
    for tree in (root, *root.parents[:2]):
        held = _manifest(tree) if root in (tree, *roots(tree)) else None
        if held is not None:
            known = {key: held[key] for key in ('kind', 'variant', 'version', 'sha256')}
            return {'path': str(root), 'of': str(tree / MANIFEST), **known}
    files = sorted(path for path in root.rglob('*') if path.is_file()) if root.is_dir() else []
    if not files:
        raise DBLRError(f'{root} holds no files; a report needs the checksum of its data')
    lines = ''.join(f'{path.relative_to(root).as_posix()} {path.stat().st_size}\n' for path in files)
    return {'path': str(root), 'of': 'names and sizes', 'sha256': hashlib.sha256(lines.encode()).hexdigest()}


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest of a complete prepared tree; None for other folders."""
    try:
        held = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
        return complete(folder, held['kind'], held['variant'])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe_device(device: torch.device) -> str:
    """The GPU's name and memory; the CPU is described by :func:`describe_machine`."""
    if device.type != 'cuda':
        return str(device)
    properties = torch.cuda.get_device_properties(device)
    return f'{properties.name}, {properties.total_memory / 2**30:.0f} GiB'


def describe_machine() -> dict[str, str | int]:
    """Returns the processor, the number of usable cores, the memory in bytes, and the system."""
    return {
        'processor': _processor(),
        'cores': usable_cores(),
        'memory': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
        'system': f'{platform.system()} {platform.release()} {platform.machine()}',
    }


def _processor() -> str:
    """Returns the processor's name from ``/proc/cpuinfo``, or else from Python."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor())


def describe_versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of Python and the installed packages among ``packages``."""
    found = {'python': platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe_commit() -> str | None:
    """Returns this checkout's commit, with ``+`` appended if files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        command = ['git', 'describe', '--always', '--abbrev=40', '--dirty=+', '--exclude=*']
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
