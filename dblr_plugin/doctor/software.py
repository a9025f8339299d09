"""Python and the packages: versions against those the plugin asks for, and whether each can be imported."""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from dblr_plugin.doctor.findings import Finding, fault, note, ok, pip, reason

__all__ = ['MODULES', 'find_extras', 'find_package', 'find_python', 'import_quietly']

#: What the plugin requires -> what it is imported as, in an order in which a broken one is met before its users.
MODULES = {
    'numpy': 'numpy',
    'opencv-python': 'cv2',
    'pillow': 'PIL.Image',
    'pyyaml': 'yaml',
    'tqdm': 'tqdm',
    'lmdb': 'lmdb',
    'tensorboard': 'tensorboard',
    'torch': 'torch',
    'torchvision': 'torchvision',
    'basicsr': 'basicsr',
}

_OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
_TORCH = ('torch', 'torchvision')

_EXTRAS = {
    'turbojpeg': ('fast', 'writing tiles of JPEG'),
    'zstandard': ('fast', 'tiles of PNG and other pictures'),
    'av': ('demo', 'reading and writing video files'),
    'matplotlib': ('demo', "the demo's pictures"),
}


def find_python() -> Iterator[Finding]:
    """Python's version against ``python_requires``, and where it is; and the system."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        needed = metadata.metadata('dblr_plugin')['Requires-Python']
    except metadata.PackageNotFoundError:
        yield fault('dblr_plugin is not installed, only found on the path', *_install_plugin())
        return
    if SpecifierSet(needed).contains(version, prereleases=True):
        yield ok(f'Python {version} ({sys.executable})')
    else:
        yield fault(
            f'Python {version} ({sys.executable}), and {needed} is needed; on others basicsr or torch cannot be built',
            'make an environment with Python 3.11 or 3.12 and install there:',
            'python3.12 -m venv .venv && source .venv/bin/activate',
        )
    if platform.system() != 'Linux':
        yield note(f'{platform.system()}: the plugin is only run and tested on Linux', 'on Windows, use WSL')


def find_package(name: str) -> Iterator[Finding]:
    """A required package: installed, of a version that will do, and importable."""
    needed = _requirement(name)
    version = _installed_version(name)
    if name == 'opencv-python':
        yield from _opencv_conflict()
    if version is None and importlib.util.find_spec(MODULES[name].split('.')[0]) is None:
        yield fault(f'{name} is not installed', 'install it:', *_install(name, needed))
        return
    error = _import_error(MODULES[name])
    if error is not None:
        yield _import_fault(name, error, needed, version)
        return
    module = sys.modules[MODULES[name].split('.')[0]]
    version = version or str(getattr(module, '__version__', 'of unknown version'))
    if not _satisfies(version, needed):
        yield fault(f'{name} {version}, and {needed} is needed', 'install another version:', *_install(name, needed))
        return
    if name == 'torchvision' and (mismatch := _torch_mismatch()):
        yield mismatch
        return
    yield ok(f'{name} {version}{_elsewhere(name, module)}')


def find_extras() -> Iterator[Finding]:
    """Packages that only some jobs need."""
    for name, (extra, purpose) in _EXTRAS.items():
        error = _import_error(name)
        if error is None:
            yield ok(f'{name} {_installed_version(name) or ""}: {purpose}')
        elif isinstance(error, ModuleNotFoundError) and error.name == name:
            yield note(f'{name} is not installed: {purpose}', 'if you need that:', _install_extra(extra))
        else:
            yield note(
                f'{name} cannot be imported ({reason(error)}): {purpose}',
                'if you need that, install it anew:',
                pip('install', '--force-reinstall', name),
            )


def import_quietly(name: str) -> ModuleType:
    """Imports a module, BasicSR's and ours after the repairs that make BasicSR importable."""
    from dblr_plugin import compat, register

    if name == 'basicsr':
        compat.prepare_import()
    if name == 'dblr_plugin':
        register()
    return importlib.import_module(name)


def _import_error(name: str) -> BaseException | None:
    try:
        import_quietly(name)
    except (Exception, SystemExit) as error:
        return error
    return None


def _import_fault(name: str, error: BaseException, needed: str, version: str | None) -> Finding:
    """Says what the error of a package's import means."""
    elsewhere, message = _elsewhere(name, None), str(error)
    text = f'{name} {version or ""} cannot be imported: {reason(error)}{elsewhere}'
    if re.search(r'lib(GL|gthread|glib|SM|Xext|Xrender)[-.\w]*\.so', message):
        return fault(
            text,
            'install the system libraries, or the OpenCV that does without (a server needs no windows):',
            'apt-get install libgl1 libglib2.0-0',
            f'{pip("uninstall", "-y", *_OPENCV)} && {pip("install", "opencv-python-headless")}',
        )
    if 'operator torchvision::' in message:
        return fault(
            f'{text}; it is not built for torch {_installed_version("torch")}',
            'install both at once, from the same place:',
            *_install('torchvision', needed),
        )
    if re.search(r'_ARRAY_API|numpy\.dtype size changed|compiled using NumPy 1', message):
        return fault(text, f'{name} was built for another NumPy than {_installed_version("numpy")}; install it anew:',
                     pip('install', '--upgrade', '--force-reinstall', '--no-deps', name))  # fmt: skip
    if elsewhere:
        return fault(text, 'rename or remove what is there, or take it off PYTHONPATH')
    missing = getattr(error, 'name', None) if isinstance(error, ModuleNotFoundError) else None
    if missing and missing.split('.')[0] != MODULES[name].split('.')[0] and not missing.startswith('torchvision.'):
        return fault(text, f'{name} needs another package:', pip('install', missing.split('.')[0]))
    return fault(text, 'its installation is damaged; install it anew:', *_install(name, needed))


def _opencv_conflict() -> Iterator[Finding]:
    """Several OpenCV packages write into one folder: the last one wins, and removing one breaks the others."""
    found = [f'{name} {version}' for name in _OPENCV if (version := _own_version(name))]
    if len(found) > 1:
        yield fault(
            f'{len(found)} OpenCV packages overwrite each other: {", ".join(found)}',
            'remove all and install one:',
            f'{pip("uninstall", "-y", *_OPENCV)} && {pip("install", "opencv-python")}',
        )


def _torch_mismatch() -> Finding | None:
    """Torchvision says which torch it was built for."""
    from packaging.requirements import Requirement

    for requirement in map(Requirement, metadata.requires('torchvision') or () if _own_version('torchvision') else ()):
        found = _own_version(requirement.name) if requirement.name == 'torch' else None
        if found is not None and not requirement.specifier.contains(found, prereleases=True):
            return fault(
                f'torchvision {_own_version("torchvision")} is built for torch{requirement.specifier}, found {found}',
                'install both at once, from the same place:',
                *_install('torchvision', ''),
            )
    return None


def _requirement(name: str) -> str:
    """The versions that the plugin needs, such as ``>=2.6``; empty when it is not installed."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires('dblr_plugin') or ()
    except metadata.PackageNotFoundError:
        return ''
    required = (Requirement(line) for line in lines)
    return next((str(r.specifier) for r in required if r.name == name and r.marker is None), '')


def _satisfies(version: str, needed: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(needed).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _installed_version(name: str) -> str | None:
    """The version of an installed package; any OpenCV will do."""
    names = _OPENCV if name == 'opencv-python' else (name,)
    return next((version for name in names if (version := _own_version(name))), None)


def _own_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _elsewhere(name: str, module: ModuleType | None) -> str:
    """Tells when a module is taken from another place than where pip installed its package."""
    top = MODULES[name].split('.')[0]
    try:
        spec = importlib.util.find_spec(top) if module is None else module.__spec__
        found = Path(spec.origin or next(iter(spec.submodule_search_locations))).resolve()
        package = next(n for n in (_OPENCV if name == 'opencv-python' else (name,)) if _own_version(n))
        home = Path(metadata.distribution(package).locate_file('')).resolve()
    except (ImportError, StopIteration, AttributeError, TypeError, ValueError):
        return ''
    # a development install lives anywhere
    if found.is_relative_to(home) or metadata.distribution(package).read_text('direct_url.json'):
        return ''
    return f' (taken from {found.parent}, not from {home}, where pip installed it)'


def _install(name: str, needed: str) -> tuple[str, ...]:
    """Commands that install a package afresh."""
    if name in _TORCH:
        wanted = (f'{torch}{_requirement(torch)}' for torch in _TORCH)
        return (pip('install', '--upgrade', '--force-reinstall', *wanted),)
    if name == 'basicsr':  # a source distribution that needs torch to be built
        return (
            pip('install', 'numpy', 'cython', 'setuptools', 'wheel'),
            pip('install', '--no-build-isolation', '--no-deps', '--force-reinstall', f'basicsr{needed}'),
        )
    return (pip('install', '--upgrade', '--force-reinstall', '--no-deps', f'{name}{needed}'),)


def _install_plugin() -> tuple[str, str]:
    folder = Path(__file__).resolve().parents[2]
    return 'install it:', pip('install', '--no-build-isolation', '--editable', str(folder))


def _install_extra(extra: str) -> str:
    """The extra's requirements, as the plugin itself may come from a checkout."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in metadata.requires('dblr_plugin') or ()]
    except metadata.PackageNotFoundError:
        required = []
    chosen = [f'{r.name}{r.specifier}' for r in required if r.marker and r.marker.evaluate({'extra': extra})]
    return pip('install', *(chosen or [name for name, (of, _) in _EXTRAS.items() if of == extra]))
