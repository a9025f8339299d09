"""The checks of ``dblr doctor``: packages, BasicSR, the machine, and an option file with its data and weights.

Other packages may be broken, so this module imports only the standard library, and tries them in another process.
"""

from __future__ import annotations

import contextlib
import importlib.metadata as metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dblr_plugin.errors import DBLRError
from dblr_plugin.processes import usable_cores

__all__ = ['FAULT', 'NOTE', 'OK', 'Finding', 'examine']

OK, NOTE, FAULT = 'ok', 'note', 'FAULT'

#: Package -> the module it is imported as, ordered so that a broken one comes before those that import it.
_MODULES = {
    'numpy': 'numpy', 'opencv-python': 'cv2', 'pillow': 'PIL.Image', 'pyyaml': 'yaml', 'tqdm': 'tqdm', 'lmdb': 'lmdb',
    'safetensors': 'safetensors', 'filelock': 'filelock', 'tensorboard': 'tensorboard', 'torch': 'torch',
    'torchvision': 'torchvision', 'basicsr': 'basicsr',
}  # fmt: skip
_OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
_CHECKED = (*_MODULES, 'dblr_plugin', 'dblr-plugin')  # packages whose requirements must be met
_SECONDS = 300  # importing torch from a network drive can take this long


class Finding(NamedTuple):
    """One line of the report. For a note or a fault, ``fix`` says what to do, with commands to copy into a shell."""

    level: str
    text: str
    fix: str = ''
    commands: tuple[str, ...] = ()


def examine(opt: str | None = None) -> Iterator[tuple[str, Finding]]:
    """Yields heading and finding of each check as it completes. Sections after one with a fault are left out."""
    sections = [
        ('Packages', [_python, _space, _packages, _extras]),
        ('BasicSR and this machine', [_which_basicsr, _registered, _operators, _devices, _backends]),
    ]
    if opt is not None:
        sections.append((opt, [partial(look, opt) for look in (_options, _data, _weights)]))
    failed = ''
    for heading, looks in sections:
        if failed:
            yield heading, Finding(NOTE, f'not checked, as there is a fault in {failed}')
            continue
        told = set()
        for finding in (finding for look in looks for finding in _guarded(look)):
            if finding in told:  # each check of an option file reads it, and finds the same fault
                continue
            told.add(finding)
            yield heading, finding
            failed = heading if finding.level == FAULT else failed


def _guarded(look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Runs a check; any exception becomes a fault."""
    try:
        yield from look()
    except DBLRError as error:
        yield _from_message(error)
    except (Exception, SystemExit) as error:
        yield Finding(FAULT, _reason(error), 'report it if reinstalling does not help')


def _from_message(error: Exception, prefix: str = '') -> Finding:
    """Turns a DBLRError into a fault: the part after its last semicolon is the fix."""
    # an error from a loader worker has the worker's traceback in front
    message = str(error).rsplit('DBLRError: ', 1)[-1].strip()
    text, _, fix = (message, '', '') if '\n' in message else message.rpartition('; ')
    return Finding(FAULT, prefix + (text or fix), fix if text else '')


def _reason(error: BaseException) -> str:
    return ': '.join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _python() -> Iterator[Finding]:
    text, fix = f'Python {platform.python_version()} ({sys.executable})', 'it is only tested there; on Windows, use WSL'
    yield Finding(OK if platform.system() == 'Linux' else NOTE, f'{text} on {platform.system()}', fix)


def _space() -> Iterator[Finding]:
    """Checks the disk, and /dev/shm, through which loader workers pass their samples."""
    free = shutil.disk_usage('.').free / 2**30
    yield Finding(OK if free > 10 else NOTE, f'{free:.1f} GiB free in {Path.cwd()}', 'checkpoints need several')
    if os.path.isdir('/dev/shm'):
        free = shutil.disk_usage('/dev/shm').free / 2**30
        fix = 'where workers end with a bus error, set num_worker_per_gpu: 0, or give more:'
        commands = 'mount -o remount,size=8G /dev/shm', 'docker run --shm-size=8g ...'
        yield Finding(OK if free >= 1 else NOTE, f'{free:.2f} GiB free in /dev/shm', fix, commands)


def _packages() -> Iterator[Finding]:
    """Checks the required packages: whether each can be imported, and pip's own check of their versions."""
    problems: dict[str, str] = {}
    sound = not _import_problem(', '.join(_MODULES.values()))  # together, as importing torch takes seconds
    if len(found := [name for name in _OPENCV if _version(name)]) > 1:
        commands = _pip('uninstall', '-y', *_OPENCV), _pip('install', 'opencv-python')
        yield Finding(FAULT, f'OpenCV packages overwrite each other: {", ".join(found)}', 'keep one:', commands)
    for name, module in _MODULES.items():
        text, problem = f'{name} {_version(name)}{_taken_from(name)}', '' if sound else _import_problem(module)
        if problem in problems:
            yield Finding(NOTE, f'{name} cannot be imported either', f'fix {problems[problem]} first')
        elif problem:
            problems[problem] = name
            yield Finding(FAULT, f'{text} cannot be imported: {problem}', *_import_fix(name, problem))
        else:
            yield Finding(OK, text)
    check = subprocess.run([sys.executable, '-m', 'pip', 'check'], capture_output=True, text=True)
    for line in check.stdout.splitlines():
        if (match := re.match(r'(\S+) \S+ (?:has requirement|requires) ([\w-]+)', line)) and match[1] in _CHECKED:
            yield Finding(FAULT, line, 'install versions that fit:', (_reinstall(match[2].rstrip(',')),))


def _import_problem(module: str) -> str:
    """Imports a module in a separate process; returns what went wrong, or ``''``."""
    repairs = f'import runpy; runpy.run_path({str(Path(__file__).with_name("compat.py"))!r})["prepare_import"]()\n'
    command = [sys.executable, '-c', f'{repairs if "basicsr" in module else ""}import {module}']
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors='replace', timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f'no answer within {_SECONDS} seconds'
    if result.returncode < 0:
        return f'importing it kills the process ({signal.Signals(-result.returncode).name})'
    said = re.findall(r'^[\w.]+: .*', result.stderr, re.MULTILINE) or ['no error message']
    return said[-1] if result.returncode else ''


def _import_fix(name: str, problem: str) -> tuple[str, tuple[str, ...]]:
    """Returns what to do about a package that cannot be imported."""
    missing = re.search(r"No module named '(\w+)", problem)
    if re.search(r'lib(GL|gthread|glib|SM|Xext|Xrender)[-.\w]*\.so', problem):
        headless = f'{_pip("uninstall", "-y", *_OPENCV)} && {_pip("install", "opencv-python-headless")}'
        fix = 'install the system libraries, or OpenCV without a GUI, which a server does not need:'
        return fix, ('apt-get install libgl1 libglib2.0-0', headless)
    if 'operator torchvision::' in problem:
        return f'it is not built for torch {_version("torch")}; install both at once:', (_reinstall(name),)
    if re.search(r'_ARRAY_API|numpy\.dtype size changed|compiled using NumPy 1', problem):
        return f'{name} was built for another NumPy than {_version("numpy")}; reinstall it:', (_reinstall(name),)
    if _taken_from(name):
        return 'rename or remove it, or remove it from PYTHONPATH', ()
    if missing and missing[1] != _MODULES[name].split('.')[0]:
        return f'{name} needs another package:', (_pip('install', missing[1]),)
    return 'install it; if it was built for another processor, an older release:', (_reinstall(name),)


def _extras() -> Iterator[Finding]:
    """Checks packages that only some commands need, which the plugin's installation lists."""
    if _version('dblr_plugin') is None:  # its folder is on PYTHONPATH
        text = f'dblr_plugin is not installed, but taken from {Path(__file__).parents[1]}'
        yield Finding(
            NOTE, text, 'for its program `dblr`, and to have its extras checked, there:', (_pip('install', '-e', '.'),)
        )
        return
    for name, (_, extra) in _required().items():
        if extra:
            version, command = _version(name), (_pip('install', name),)
            yield Finding(OK if version else NOTE, f'{extra}: {name} {version or "is missing"}', 'if needed:', command)


def _required() -> dict[str, tuple[str, str]]:
    """Returns package -> the versions that the plugin needs, such as ``>=2.6``, and its first extra or ``''``."""
    pattern = r'([\w.-]+)\s*([^;\s]*)\s*(?:;.*extra == .(\w+))?'
    matches = [re.match(pattern, line) for line in metadata.requires('dblr_plugin') or ()]
    required: dict[str, tuple[str, str]] = {}
    for name, versions, extra in (match.groups('') for match in matches if match):
        if extra not in ('dev', 'demo'):
            required.setdefault(name, (versions, extra))
    return required


def _version(name: str) -> str | None:
    """Returns the version of an installed package; any OpenCV will do."""
    for distribution in _OPENCV if name == 'opencv-python' else (name,):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return None


def _taken_from(name: str) -> str:
    """Returns where a module is found if that is not where pip installs packages."""
    spec = importlib.util.find_spec(_MODULES[name].split('.')[0])
    folder = Path(spec.origin).resolve().parent if spec and spec.origin else None
    installed = [Path(sysconfig.get_path(key)).resolve() for key in ('purelib', 'platlib')]
    return f' (taken from {folder})' if folder and not any(map(folder.is_relative_to, installed)) else ''


def _pip(*arguments: str) -> str:
    return shlex.join([sys.executable, '-m', 'pip', *arguments])


def _reinstall(name: str) -> str:
    """Returns the command that reinstalls a package: torch and torchvision together; basicsr needs torch to build."""
    names = ('torch', 'torchvision') if name in ('torch', 'torchvision') else (name,)
    options = [*['--no-build-isolation'] * (name == 'basicsr'), *['--no-deps'] * (len(names) == 1), '--force-reinstall']
    return _pip('install', *options, *(f'{other}{_required().get(other, ("",))[0]}' for other in names))


def _which_basicsr() -> Iterator[Finding]:
    """Checks which BasicSR is imported, and whether checkouts are linked to the plugin."""
    from dblr_plugin import compat
    from dblr_plugin.link import is_checkout, missing_files

    compat.prepare_import()
    import basicsr

    home = Path(basicsr.__path__[0]).resolve()
    yield Finding(OK, f'basicsr {basicsr.__version__} is imported from {home}')
    for checkout in filter(is_checkout, dict.fromkeys([home.parent, Path.cwd().resolve()])):
        missing, fix = missing_files(checkout), 'dblr train works all the same; for python basicsr/train.py there:'
        text = f'the checkout {checkout} is {"not linked" if missing else "linked"}'
        commands = f'dblr link --unlink {checkout}', f'dblr link {checkout}'
        yield Finding(NOTE if missing else OK, f'{text}: {", ".join(missing)}', fix, commands)


def _registered() -> Iterator[Finding]:
    from dblr_plugin import register

    register()
    from basicsr.utils import registry

    for kind in ('arch', 'dataset', 'loss', 'model'):
        entries = getattr(registry, f'{kind.upper()}_REGISTRY')
        ours = sorted(name for name, entry in entries if entry.__module__.startswith('dblr_plugin.'))
        fix = 'two copies of basicsr are imported; uninstall one'
        yield Finding(OK if ours else FAULT, f'registered, {kind}: {", ".join(ours)}', fix)


def _operators() -> Iterator[Finding]:
    """Checks torchvision's compiled operators on each kind of device: nothing has to be compiled here."""
    import torch
    from torchvision.ops import deform_conv2d, nms

    for device in ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']:
        box, one = torch.tensor([[0.0, 0, 9, 9]] * 2, device=device), torch.ones(1, 1, 3, 3, device=device)
        try:
            right = nms(box, box[:, 2], 0.5).tolist() == [0]
            right = right and deform_conv2d(one, one.new_zeros(1, 18, 1, 1), one).item() == 9
            result = 'work' if right else 'give a wrong result'
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            right, result = False, _reason(error)
        fix, commands = 'install torch and torchvision together:', (_reinstall('torch'),)
        yield Finding(OK if right else FAULT, f'nms and deform_conv2d on {device}: {result}', fix, commands)


def _devices() -> Iterator[Finding]:
    """Checks the CPU's threads, and every GPU by a computation; says why if there is none."""
    import torch

    threads, cores = torch.get_num_threads(), usable_cores()
    text = f'{cores} cores, {threads} threads, {torch.backends.cpu.get_cpu_capability()}'
    fix = 'more threads than cores wait for each other:', (f'export OMP_NUM_THREADS={cores}',)
    yield Finding(NOTE if threads > cores else OK, text, *fix)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(count):
        text, built = f'cuda:{number} {torch.cuda.get_device_name(number)}', ' '.join(torch.cuda.get_arch_list())
        try:
            torch.ones(64, 64, device=f'cuda:{number}').mm(torch.ones(64, 64, device=f'cuda:{number}')).sum().item()
            yield Finding(OK, text)
        except RuntimeError as error:
            yield Finding(FAULT, f'{text}: {_reason(error)}', f'torch is built for {built}:', (_reinstall('torch'),))
    driver = '/proc/driver/nvidia/version' if os.path.exists('/proc/driver/nvidia') else shutil.which('nvidia-smi')
    if count == 0 and not driver:
        yield Finding(OK, 'no GPU: networks run on the CPU')
    elif count == 0:
        hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
        why = [f'CUDA_VISIBLE_DEVICES is {hidden!r}'] if hidden is not None else [str(w.message) for w in caught]
        advice = 'show the GPUs, update the driver or install another build of torch; in a container, pass the GPUs on:'
        text = f'torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU, but {driver} is there {why[:1]}'
        commands = ('nvidia-smi', _reinstall('torch'), 'docker run --gpus all')
        yield Finding(FAULT if hidden is None else NOTE, text, advice, commands)


def _backends() -> Iterator[Finding]:
    """Starts a process group of one with each backend that training may use."""
    import torch
    from torch import distributed as dist

    for backend, device in [('gloo', 'cpu'), ('nccl', 'cuda')][: 1 + torch.cuda.is_available()]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                dist.init_process_group(backend, f'file://{folder}/store', rank=0, world_size=1)
                dist.all_reduce(torch.ones(1, device=device))
                dist.destroy_process_group()
            yield Finding(OK, f'{backend} starts, for training in several processes')
        except (RuntimeError, OSError, ValueError) as error:
            fix, interface = 'where the host name has no address:', f'export {backend.upper()}_SOCKET_IFNAME=lo'
            yield Finding(FAULT, f'{backend} does not start: {_reason(error)}', fix, (interface,))


def _options(path: str) -> Iterator[Finding]:
    import torch

    from dblr_plugin.options.option_file import check_option_file

    opt, count = _read(path), torch.cuda.device_count()
    if isinstance(opt.get('num_gpu'), int) and opt['num_gpu'] > count:
        yield Finding(FAULT, f'num_gpu is {opt["num_gpu"]}, of {count} CUDA devices', 'set num_gpu: auto')
    check_option_file(path, 'train' in opt)
    yield Finding(OK, f'for {"training" if "train" in opt else "testing"}; keys, classes and values are known')


def _data(path: str) -> Iterator[Finding]:
    """Indexes and pairs every data set of the plugin, and reads one sample of each in a loader worker."""
    from basicsr.utils.registry import DATASET_REGISTRY
    from torch.utils.data import DataLoader, Subset

    opt = _read(path)
    for phase, options in opt['datasets'].items():
        options = {'phase': phase.split('_')[0], 'scale': opt.get('scale', 1), **(options or {})}
        cls = dict(iter(DATASET_REGISTRY)).get(options.get('type'))
        if cls is None or not cls.__module__.startswith('dblr_plugin.'):
            yield Finding(NOTE, f'{phase}: {options.get("type")} is not a data set of the plugin', 'look yourself')
            continue
        try:
            dataset = cls(options)
            list(DataLoader(Subset(dataset, [len(dataset) - 1]), batch_size=None, num_workers=1, timeout=180))
            yield Finding(OK, f'{phase}: {len(dataset)} samples; every frame is in its place; a worker has read one')
        except DBLRError as error:
            yield _from_message(error, f'{phase}: ')


def _weights(path: str) -> Iterator[Finding]:
    from dblr_plugin.weights.checkpoint import read_checkpoint
    from dblr_plugin.weights.shipped import find_weights

    for key, file in _read(path)['path'].items():
        if file is not None and (key.startswith('pretrain_network_') or key == 'resume_state'):
            try:
                read_checkpoint(find_weights(os.path.expanduser(file)))
                yield Finding(OK, f'{key}: {file} can be read')
            except DBLRError as error:
                yield _from_message(error, f'{key}: ')


def _read(path: str) -> dict[str, Any]:
    """Returns the option file's values; missing sections are empty, as the check of the options reports them."""
    from dblr_plugin.yaml_file import read_option_file

    root = read_option_file(path)
    opt = {key: entry.plain() for key, entry in root.entries('').items()}
    return opt | {name: opt[name] if isinstance(opt.get(name), dict) else {} for name in ('datasets', 'path')}
