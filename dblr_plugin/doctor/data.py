"""An option file and what it names: data sets, weights, the folder for results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dblr_plugin.doctor.findings import Finding, fault, from_message, note, ok, reason
from dblr_plugin.doctor.machine import cores
from dblr_plugin.doctor.software import import_quietly
from dblr_plugin.errors import DBLRError

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from dblr_plugin.data import FrameStore

__all__ = ['find_data', 'find_file', 'find_options', 'find_output', 'find_weights', 'find_workers']

WORKER_SECONDS = 180

_ROOTS = ('dataroot_lq', 'dataroot_gt')


def find_file(path: str) -> Iterator[Finding]:
    """Whether the option file is YAML with the sections that the other checks look into."""
    import yaml

    try:
        opt = _read(path)
    except OSError as error:
        yield fault(f'{path} cannot be read ({error.strerror})', 'check the path; dblr link writes option files')
        return
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield fault(f'{path} is not valid YAML: {" ".join(str(error).split())}', 'mend that line')
        return
    sections = ('datasets', 'path')
    wrong = [name for name in sections if not (isinstance(opt, dict) and isinstance(opt.get(name), dict))]
    if wrong:
        yield fault(f'{path} lacks {" and ".join(wrong)}', 'start from one of the files in options/')
    else:
        yield ok(f'{path} is for {"training" if _is_train(opt) else "testing"}')


def find_options(path: str) -> Iterator[Finding]:
    """The plugin's own check of option files, and the number of GPUs."""
    import_quietly('dblr_plugin')
    import torch

    from dblr_plugin.options.option_file import check_option_file

    opt, found = _read(path), torch.cuda.device_count()
    check_option_file(path, _is_train(opt))
    yield ok('keys, classes and values are known')
    wanted = opt.get('num_gpu')
    if isinstance(wanted, int) and wanted > found:
        yield fault(f'num_gpu is {wanted}, and {found} CUDA devices are visible', 'set num_gpu: auto')


def find_data(path: str) -> Iterator[Finding]:
    """Opens, indexes and pairs every data set, and decodes a frame of each side."""
    import_quietly('dblr_plugin')
    opt = _read(path)
    for phase in opt['datasets']:
        try:
            yield from _find_dataset(opt, phase)
        except DBLRError as error:
            yield from_message(error, f'{phase}: ')


def _find_dataset(opt: dict[str, Any], phase: str) -> Iterator[Finding]:
    from dblr_plugin.data import open_store

    options, usable = _dataset_options(opt, phase), True
    roots = {key: options[key] for key in _ROOTS if options.get(key) is not None}
    if not _is_ours(options):
        missing = [f'{key}: {root}' for key, root in roots.items() if not Path(root).exists()]
        if missing:
            raise DBLRError(f'{", ".join(missing)} does not exist; check the path ({_start()})')
        yield note(f'{phase}: {options.get("type")} is not a data set of the plugin, and was not looked into')
        return
    for key, root in roots.items():
        try:
            yield ok(f'{phase}: {key}: {_opened(open_store(root, options.get("io_backend")))}')
        except DBLRError as error:
            usable = False
            yield _data_fault(f'{phase}: {key}: ', error)
    if usable:
        yield ok(f'{phase}: every frame is whole and in its place; {len(_build(opt, phase))} samples')


def find_workers(path: str) -> Iterator[Finding]:
    """Reads samples of all data sets in a loader's worker, forked and spawned."""
    import_quietly('dblr_plugin')
    from torch.utils.data import ConcatDataset, DataLoader, Subset

    opt = _read(path)
    datasets = [_build(opt, phase) for phase in opt['datasets'] if _is_ours(_dataset_options(opt, phase))]
    if not datasets:
        return
    samples = ConcatDataset([Subset(dataset, sorted({0, len(dataset) - 1})) for dataset in datasets])
    for method in ('fork', 'spawn'):
        loader = DataLoader(
            samples, batch_size=None, num_workers=1, multiprocessing_context=method, timeout=WORKER_SECONDS
        )
        try:
            count = sum(1 for _ in loader)
        except DBLRError as error:
            yield from_message(error, f'in a worker ({method}): ')
        except (RuntimeError, OSError) as error:
            yield fault(
                f'a worker ({method}) does not read the data: {reason(error)}',
                'set num_worker_per_gpu: 0 to read without workers; see /dev/shm above',
            )
        else:
            yield ok(f'a worker ({method}) has read {count} samples')
    workers = (opt['datasets'].get('train') or {}).get('num_worker_per_gpu')
    if isinstance(workers, int) and workers > cores():
        yield note(f'num_worker_per_gpu is {workers}, more than the {cores()} cores here', 'more gain little; lower it')


def find_weights(path: str) -> Iterator[Finding]:
    """Reads the checkpoints that the ``path`` section names."""
    import_quietly('dblr_plugin')
    from dblr_plugin.weights import read_checkpoint

    for key, file in _read(path)['path'].items():
        if file is None or not (key.startswith('pretrain_network_') or key == 'resume_state'):
            continue
        try:
            read_checkpoint(os.path.expanduser(file))
        except DBLRError as error:
            found = from_message(error, f'{key}: ')
            if not Path(file).expanduser().exists():
                found = fault(found.text, f'train that network first, or set {key}: ~ ({_start()})')
            yield found
        else:
            yield ok(f'{key}: {file} can be read')


def find_output(path: str) -> Iterator[Finding]:
    """Writes a file where results will be."""
    opt = _read(path)
    name = 'experiments' if _is_train(opt) else 'results'
    folder = Path(os.path.expanduser(opt['path'].get(f'{name}_root') or name)).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b'dblr')
    except OSError as error:
        yield fault(
            f'{name}/ cannot be made or written to: {existing} ({error.strerror})',
            f'mend that, start in another folder, or set path.{name}_root',
        )
    else:
        yield ok(f'{folder} can be written to')


def _read(path: str) -> dict[str, Any]:
    import yaml

    with open(path, encoding='utf-8') as file:
        return yaml.safe_load(file)


def _is_train(opt: dict[str, Any]) -> bool:
    return 'train' in opt


def _dataset_options(opt: dict[str, Any], phase: str) -> dict[str, Any]:
    """A data set's options as BasicSR hands them over."""
    options = opt['datasets'][phase]
    if not isinstance(options, dict):
        raise DBLRError('the section is empty; give it type and dataroot_lq, or remove it')
    roots = {key: os.path.expanduser(options[key]) for key in _ROOTS if isinstance(options.get(key), str)}
    return {'phase': phase.split('_')[0], 'scale': opt.get('scale', 1), **options, **roots}


def _is_ours(options: dict[str, Any]) -> bool:
    from basicsr.utils.registry import DATASET_REGISTRY

    return any(
        name == options.get('type') and cls.__module__.startswith('dblr_plugin.') for name, cls in DATASET_REGISTRY
    )


def _build(opt: dict[str, Any], phase: str) -> Dataset:
    """Makes a data set of the plugin."""
    from basicsr.utils.registry import DATASET_REGISTRY

    options = _dataset_options(opt, phase)
    return DATASET_REGISTRY.get(options['type'])(options)


def _opened(store: FrameStore) -> str:
    """Describes a store, after decoding its first frame."""
    clips = store.clips()
    kind = {'FolderStore': 'folder', 'LmdbStore': 'LMDB', 'TileStore': 'tiles'}[type(store).__name__]
    clip, frame = next((clip, frames[0]) for clip, frames in clips.items() if frames)
    height, width = store.read(clip, frame).shape[:2]
    count = sum(map(len, clips.values()))
    return f'{store.root} ({kind}), {len(clips)} clips, {count} frames; {clip}/{frame} decoded, {width}x{height}'


def _data_fault(prefix: str, error: DBLRError) -> Finding:
    found = from_message(error, prefix)
    if 'does not exist' not in found.text:
        return found
    return fault(
        found.text,
        f'{found.cure} ({_start()}); what makes it of a published data set, or of videos:',
        'dblr prepare --help',
    )


def _start() -> str:
    return f'relative paths start at {Path.cwd()}'
