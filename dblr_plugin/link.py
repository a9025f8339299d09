"""Adds the plugin to an otherwise unchanged BasicSR checkout, and removes it again."""

from __future__ import annotations

import hashlib
import json
import shutil
import sysconfig
from pathlib import Path

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import name_fault, sha256_of, write_whole

__all__ = ['is_checkout', 'link', 'missing_files', 'option_files', 'options_folder', 'unlink']

_MANIFEST = '.dblr_link.json'

# the file alone: importing the package would register classes before BasicSR has its registries filled
_LOAD_COMPAT = """\
_plugin = importlib.util.find_spec('dblr_plugin')
if _plugin is not None:
    _spec = importlib.util.spec_from_file_location('_dblr_compat', Path(_plugin.origin).with_name('compat.py'))
    _compat = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_compat)
"""

# BasicSR imports every *_arch.py before its data modules, which cannot be imported with current torchvision
_COMPAT_SHIM = f'''\
"""Written by `dblr link`: lets BasicSR import on today's torchvision. `dblr link --unlink` removes it."""
import importlib.util
from pathlib import Path

{_LOAD_COMPAT}    _compat.prepare_import()
'''

_MODEL_SHIM = '''\
"""Written by `dblr link`: registers dblr_plugin's classes. `dblr link --unlink` removes it."""
import importlib.util
import sys

if importlib.util.find_spec('dblr_plugin') is not None:
    import dblr_plugin  # noqa: F401
else:
    print('dblr_plugin is linked into this checkout but not installed: install it again, or delete the files named '
          'in .dblr_link.json', file=sys.stderr)
'''

# `python basicsr/train.py` puts basicsr/ itself first on the path, where this stands in for the package
_PATH_SHIM = f'''\
"""Written by `dblr link`: makes `python basicsr/train.py` import this checkout, not an installed BasicSR, and faster.

`dblr link --unlink` removes it.
"""
import contextlib
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
del sys.modules['basicsr']
_importing = contextlib.nullcontext()
{_LOAD_COMPAT}    _importing = _compat.light_import()
with _importing:
    importlib.import_module('basicsr')
'''


def options_folder() -> Path:
    """Returns the ``options`` folder of the plugin, in its source tree or installed beside it."""
    source = Path(__file__).resolve().parents[1] / 'options'
    installed = Path(sysconfig.get_path('data')) / 'share' / 'dblr_plugin' / 'options'
    return source if source.is_dir() else installed


def option_files() -> list[Path]:
    """Returns its option files for training and testing, without those of the demo and the benchmark."""
    names = ('test_', 'train_')
    return sorted(path for path in options_folder().glob('*.yml') if path.name.startswith(names))


def link(checkout: str | Path) -> list[Path]:
    """Writes shims and option files into a BasicSR checkout.

    Afterwards ``python basicsr/train.py -opt options/train_DBLRGAN.yml`` works there, and so does torchrun.

    Returns:
        The files written.

    Raises:
        DBLRError: If it is not a checkout, is already linked, or one of the files exists or cannot be written; files
            written until then are removed.
    """
    root = _checkout(checkout)
    if (root / _MANIFEST).exists():
        raise DBLRError(f'{root} is linked already; run dblr link --unlink first to write the files again')
    files = _contents(root)
    taken = [name for name in files if (root / name).exists()]
    if taken:
        raise DBLRError(f'{root} has files of these names already: {", ".join(taken)}; move them away')
    manifest = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in files.items()}
    # first, so that an interrupted link can be undone
    write_whole(root / _MANIFEST, json.dumps(manifest, indent=2))
    try:
        for name, content in files.items():
            write_whole(root / name, content)
    except DBLRError:
        unlink(root)
        raise
    return [root / name for name in files]


def unlink(checkout: str | Path) -> tuple[list[Path], list[Path]]:
    """Removes what :func:`link` wrote.

    Returns:
        The files removed, and those kept because they have changed since.

    Raises:
        DBLRError: If the checkout is not linked.
    """
    root = _checkout(checkout)
    if not (root / _MANIFEST).exists():
        raise DBLRError(f'{root} is not linked: there is no {_MANIFEST}')
    removed, kept = [], []
    for name, digest in _read_manifest(root / _MANIFEST).items():
        path = root / name
        if path.is_file() and sha256_of(path) == digest:
            path.unlink()
            removed.append(path)
        elif path.is_file():
            kept.append(path)
    for folder in (root / 'basicsr' / 'basicsr', root / 'options'):
        _remove_if_empty(folder)
    (root / _MANIFEST).unlink()
    return removed, kept


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        manifest = None
    is_sound = isinstance(manifest, dict) and all(isinstance(digest, str) for digest in manifest.values())
    # the manifest may come with the checkout, so files that it names outside must not be removed
    if not is_sound or any(map(name_fault, manifest)):
        raise DBLRError(f"{path} is damaged; remove it and all files marked 'Written by `dblr link`'")
    return manifest


def is_checkout(root: Path) -> bool:
    """Returns whether a folder is a checkout of BasicSR."""
    return (root / 'basicsr' / 'train.py').is_file() and (root / 'VERSION').is_file()


def missing_files(root: Path) -> list[str]:
    """Returns the files of the link that a checkout lacks: the manifest if it is not linked, else those deleted since.

    Raises:
        DBLRError: If the manifest is damaged.
    """
    if not (root / _MANIFEST).exists():
        return [_MANIFEST]
    return [name for name in _read_manifest(root / _MANIFEST) if not (root / name).is_file()]


def _checkout(path: str | Path) -> Path:
    root = Path(path).resolve()
    if not is_checkout(root):
        raise DBLRError(f'{path}: not a BasicSR checkout: basicsr/train.py and VERSION are not there')
    return root


def _contents(root: Path) -> dict[str, str]:
    files = {
        'basicsr/archs/dblr_compat_arch.py': _COMPAT_SHIM,
        'basicsr/models/dblr_model.py': _MODEL_SHIM,
        'basicsr/basicsr/__init__.py': _PATH_SHIM,
    }
    if not (root / 'basicsr' / 'version.py').exists():
        # as BasicSR's setup.py would write it; a checkout that was never installed lacks it
        version = (root / 'VERSION').read_text(encoding='utf-8', errors='replace').strip()
        files['basicsr/version.py'] = f"# Written by `dblr link`\n__version__ = '{version}'\n__gitsha__ = 'unknown'\n"
    return files | {f'options/{path.name}': path.read_text(encoding='utf-8') for path in option_files()}


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {'__pycache__'}:
        shutil.rmtree(folder)
