"""Connects the plugin to BasicSR's ``train.py`` and ``test.py``, stock or ours.

``parse_options`` is the first function that both programs call, and they look it up when they start. Ours checks the
option file, supports torchrun, ``--set`` and ``--protocol``, calls BasicSR's, checks that this machine can run the
options, and installs our parts of training. Runs with other models are left to BasicSR.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr.utils import options as basicsr_options
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import master_only

from dblr_plugin.compat import repair_distributed
from dblr_plugin.console import never_fail_to_print, show_errors_in_one_line, writes_into
from dblr_plugin.errors import DBLRError, nearest, raise_faults
from dblr_plugin.files import atomic_write
from dblr_plugin.weights.shipped import SHIPPED
from dblr_plugin.yaml_file import parse, read_option_file, take_overrides, with_base

__all__ = ['check_options', 'install', 'parse_options']

_log = logging.getLogger(__name__)

_basicsr_parse_options = basicsr_options.parse_options

#: The result of the last ``parse_options``; BasicSR's programs do not return where they put their results.
parsed_options: dict = {}

#: Option file -> its text; a new run archives an older one's folder, which the file may be in.
_texts: dict[str, str] = {}


def install() -> None:
    """Replaces functions wherever BasicSR has them; ``__main__`` of a stock command imports them after us."""
    for name in ('basicsr.utils.options', 'basicsr.train', 'basicsr.test'):
        if name in sys.modules:
            vars(sys.modules[name]).update(parse_options=parse_options, copy_opt_file=copy_opt_file)


def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, argparse.Namespace]:
    """Runs BasicSR's ``parse_options`` on checked options, with support for torchrun.

    ``--set``, ``--force_yml`` and ``--protocol`` may appear anywhere in the arguments. BasicSR gets the options as
    checked; ``sys.argv`` stays as the user typed it.

    Raises:
        DBLRError: If the options are invalid, or not supported on this machine.
    """
    # this imports the registries, which may still be being filled when this module is imported
    from dblr_plugin.options.option_file import check_option_file

    never_fail_to_print()  # the stock commands start here
    show_errors_in_one_line()
    overrides, arguments = take_overrides(sys.argv[1:])
    path = _value_of('-opt', arguments)
    options = None
    if path is not None:
        options = check_option_file(path, is_train, overrides)
        _texts[path] = _whole_text(path)
    seed, roots = None, {}
    if options is not None:
        # BasicSR would pass the limit to a function that does not accept it
        repair_distributed(options.get('dist_params', {}).pop('timeout', None), options['num_gpu'] == 0)
        seed = options.get('manual_seed')
        roots = {key: options['path'].pop(key, None) for key in ('experiments_root', 'results_root')}
    # BasicSR handles --force_yml for its own models
    with _basicsr_reading(sys.argv[1:] if options is None else arguments, options):
        opt, args = _basicsr_parse_options(root_path, is_train)
    if options is not None:
        _place_results(opt, roots['experiments_root' if is_train else 'results_root'])
        if seed is None:
            _share_seed(opt)
    parsed_options.clear()
    parsed_options.update(opt)
    writes_into(opt['path'].get('experiments_root') or opt['path'].get('results_root') or '')
    if options is not None:
        check_options(opt)
        _take_part(opt)
    return opt, args


def check_options(opt: dict) -> None:
    """Rejects parsed options that this machine cannot run.

    BasicSR would fail only after archiving an older experiment with the same name. With several GPUs and a single
    process, where BasicSR would use ``DataParallel``, ``num_gpu`` becomes 1.

    Raises:
        DBLRError: More GPUs are requested than available, prefetching or compiling cannot work, or wandb or a path
            does not exist.
    """
    found = torch.cuda.device_count()
    if opt['num_gpu'] > found:
        raise DBLRError(f'num_gpu is {opt["num_gpu"]}, but {found} CUDA devices are visible; set num_gpu: auto')
    if opt['num_gpu'] == 0:
        _check_without_gpu(opt)
    if ((opt.get('logger') or {}).get('wandb') or {}).get('project') and importlib.util.find_spec('wandb') is None:
        raise DBLRError('logger.wandb needs: pip install wandb; or leave its project empty')
    _check_paths(opt)
    if opt['is_train'] and 'debug' in opt['name']:  # anywhere in it
        _log.warning(
            "The name has 'debug' in it: BasicSR prints each iteration, validates and saves every 8, and leaves out "
            'TensorBoard, whatever the options say.'
        )
    if opt['num_gpu'] > 1 and not opt['dist']:
        _log.warning(
            'Only one of %d GPUs is used. To use all: torchrun --nproc_per_node=%d -m dblr_plugin.%s -opt FILE',
            opt['num_gpu'], opt['num_gpu'], 'train' if opt['is_train'] else 'test',
        )  # fmt: skip
        opt['num_gpu'] = 1


def _check_without_gpu(opt: dict) -> None:
    if opt['datasets'].get('train', {}).get('prefetch_mode') == 'cuda':
        raise DBLRError('datasets.train.prefetch_mode: cuda needs a GPU; remove the line')
    compilers = (os.environ.get('CXX'), 'g++', 'clang++', 'c++')
    if (opt.get('train') or {}).get('compile') and not any(shutil.which(name) for name in compilers if name):
        raise DBLRError('train.compile needs a C++ compiler on the CPU; install g++, or remove the line')


def _check_paths(opt: dict) -> None:
    paths = {
        f'datasets.{name}.{key}': dataset.get(key)
        for name, dataset in opt['datasets'].items()
        for key in ('dataroot_lq', 'dataroot_gt', 'meta_info_file')
    }
    if not (opt['auto_resume'] or opt['path'].get('resume_state')):
        paths |= {f'path.{key}': value for key, value in opt['path'].items() if key.startswith('pretrain_network_')}
    faults = []
    for key, path in paths.items():
        if path is not None and not Path(path).exists():
            hint = '; dblr prepare makes data sets' if key.startswith('datasets.') else nearest(path, SHIPPED)
            faults.append(f'{key}: {path} does not exist (looked up from {Path.cwd()}){hint}')
    raise_faults(faults, 'options')


def _place_results(opt: dict, root: str | None) -> None:
    """Moves the folders of a run or a test below ``path.experiments_root`` or ``results_root``, if set.

    BasicSR 1.4.2 ignores both, and fails if the one that a program does not use is empty.
    """
    folder = opt['path'].get('experiments_root') or opt['path']['results_root']
    own = folder
    if root is not None:
        own = os.path.abspath(os.path.join(os.path.expandvars(os.path.expanduser(root)), opt['name']))
    for key in ('experiments_root', 'results_root', 'models', 'training_states', 'log', 'visualization'):
        if key in opt['path']:
            opt['path'][key] = own + opt['path'][key].removeprefix(folder)


def _share_seed(opt: dict) -> None:
    """Makes all processes use the seed that the first one drew: the sample order, which they divide, depends on it.

    A run that is resumed takes its state's instead.
    """
    from dblr_plugin.training.step import of_all_processes

    opt['manual_seed'] = of_all_processes(opt['manual_seed'])[0]
    opt['draws_seed'] = True
    set_random_seed(opt['manual_seed'] + opt['rank'])


@master_only
def copy_opt_file(opt_file: str, experiments_root: str) -> None:
    """Replaces BasicSR's ``copy_opt_file``, which fails if the file is an earlier run's copy, such as this one's."""
    text = _texts.get(opt_file) or _whole_text(opt_file)
    command = shlex.join(sys.argv).replace('\n', '\n# ')
    text = f'# GENERATE TIME: {time.asctime()}\n# CMD:\n# {command}\n\n{text}'
    try:
        with atomic_write(Path(experiments_root, Path(opt_file).name)) as partial:
            partial.write_text(text, encoding='utf-8')
    except DBLRError as error:
        _log.warning('%s. The run continues without its copy of the option file.', error)


def _whole_text(path: str) -> str:
    """Returns an option file's text, with its ``base`` written out, as a copy is in another folder."""
    text = Path(path).read_text(encoding='utf-8-sig')  # without a byte-order mark, which must be at the start
    if 'base' in parse(text, path).entries(''):
        return yaml.safe_dump(read_option_file(path).plain(), sort_keys=False)
    return text


def _take_part(opt: dict) -> None:
    """Replaces BasicSR's parts of training by ours, in its programs and the stock commands."""
    from dblr_plugin.evaluation.validation import check_sizes, protocols_of
    from dblr_plugin.training import trainer

    for name in ('__main__', 'basicsr.train', 'basicsr.test'):
        module = sys.modules.get(name)
        if module is None:
            continue
        if hasattr(module, 'train_pipeline') or hasattr(module, 'test_pipeline'):
            trainer.patch_log(module)
        if not opt['is_train'] and hasattr(module, 'test_pipeline'):
            trainer.patch_test(module)
        if opt['is_train'] and hasattr(module, 'load_resume_state'):
            trainer.patch_trainer(module, opt, lambda dataset: check_sizes(dataset, protocols_of(opt.get('val') or {})))
    if opt['is_train'] and not opt['datasets']['train']['num_worker_per_gpu']:
        opt['datasets']['train']['persistent_workers'] = False  # torch's loader refuses it without workers


def _value_of(option: str, arguments: list[str]) -> str | None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(option, dest='value')
    return parser.parse_known_args(arguments)[0].value


@contextlib.contextmanager
def _basicsr_reading(arguments: list[str], options: dict | None) -> Iterator[None]:
    """Makes BasicSR parse these arguments, and read these options whatever the file.

    For None, it reads the file's content by our loader, as its own would run code that a file names. All versions of
    BasicSR get YAML's loader from ``ordered_yaml``. The user's arguments are restored: it writes them into the run's
    option file.
    """

    class Loader:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def get_single_data(self) -> dict:
            if options is not None:
                return options
            text, name = self.stream, 'YAML'
            if not isinstance(text, str):
                text, name = self.stream.read(), self.stream.name
            return with_base(parse(text, name), Path(name)).plain()

        def dispose(self) -> None:
            pass

    original, typed = basicsr_options.ordered_yaml, sys.argv
    sys.argv = [typed[0], *_torchrun_arguments(arguments)]
    basicsr_options.ordered_yaml = lambda: (Loader, None)
    try:
        yield
    finally:
        basicsr_options.ordered_yaml, sys.argv = original, typed


#: Value of ``--launcher`` -> a variable that the launcher sets, and how it starts processes
_LAUNCHERS = {'pytorch': ('RANK', 'torchrun --nproc_per_node=N'), 'slurm': ('SLURM_PROCID', 'srun')}


def _torchrun_arguments(argv: list[str]) -> list[str]:
    """Accepts both spellings of local rank, and detects torchrun by the variables that it sets.

    Rejects a launcher that has not started this process; BasicSR fails where it reads the launcher's variables.
    """
    argv = [a.replace('--local-rank', '--local_rank', 1) if a.startswith('--local-rank') else a for a in argv]
    launcher = _value_of('--launcher', argv)
    variable, start = _LAUNCHERS.get(launcher or '', ('', ''))
    if variable and variable not in os.environ:
        raise DBLRError(
            f'--launcher {launcher} needs processes started by {start}; start it that way, or remove --launcher'
        )
    if launcher is None and {'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'} <= os.environ.keys():
        # first, because BasicSR's --force_yml, left to it for its own models, takes all arguments after it
        argv = ['--launcher', 'pytorch', *argv]
    elif launcher is None and int(os.environ.get('SLURM_PROCID', 0)) > 0:
        _log.warning('srun started several processes; each is a run of its own, as --launcher slurm is not given.')
    return argv
