"""Where the plugin takes hold of BasicSR's ``train.py`` and ``test.py``, stock or ours.

``parse_options`` is the first thing both programs call, and is looked up when they start. Ours checks the option
file, understands torchrun and ``--protocol``, calls BasicSR's, and puts our sampler and our way of resuming in place.
Runs whose model is not ours are left to BasicSR.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from types import TracebackType

from basicsr.utils import options as basicsr_options

from dblr_plugin.errors import DBLRError

__all__ = ['install', 'show_errors_in_one_line']

_basicsr_parse_options = basicsr_options.parse_options

#: What the last ``parse_options`` returned; BasicSR's programs tell nobody where they left their results.
parsed_options: dict = {}


def install() -> None:
    """Replaces ``parse_options`` wherever BasicSR has it; ``__main__`` of a stock command imports it after us."""
    for name in ('basicsr.utils.options', 'basicsr.train', 'basicsr.test'):
        if name in sys.modules:
            sys.modules[name].parse_options = parse_options


def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, argparse.Namespace]:
    """BasicSR's ``parse_options`` with the option file checked first, torchrun understood, and resuming mended.

    ``--protocol NAME`` anywhere among the arguments becomes ``val.protocol``.

    Raises:
        DBLRError: For a faulty option file, or one this machine cannot run.
    """
    # these import the registries, which may still be filling when this module is imported
    from dblr_plugin.options import check_option_file, check_options, is_ours

    show_errors_in_one_line()
    protocol, arguments = _protocol_argument(sys.argv[1:])
    sys.argv[1:] = _torchrun_arguments(arguments)
    given = argparse.ArgumentParser(add_help=False)
    given.add_argument('-opt')
    path = given.parse_known_args()[0].opt
    if path is not None:
        check_option_file(path, is_train)
    opt, args = _basicsr_parse_options(root_path, is_train)
    if protocol is not None:
        if opt.get('val') is None:
            raise DBLRError(f'--protocol: {path} has no val section; add one')
        if not is_ours(opt):
            raise DBLRError(f'--protocol: {opt["model_type"]} of {path} scores by val.metrics alone; leave it out')
        opt['val']['protocol'] = protocol
    parsed_options.clear()
    parsed_options.update(opt)
    if is_ours(opt):
        check_options(opt)
        if is_train:
            _take_part_in_training(opt)
    return opt, args


def _take_part_in_training(opt: dict) -> None:
    """Puts our sampler and our way of resuming in place of BasicSR's, in its trainer or the stock command."""
    from dblr_plugin.data.train_sampler import TrainSampler
    from dblr_plugin.models.resume import load_resume_state

    train_set = opt['datasets']['train']
    if not train_set['num_worker_per_gpu']:
        train_set['persistent_workers'] = False  # torch's loader refuses it without workers
    for name in ('__main__', 'basicsr.train'):
        module = sys.modules.get(name)
        if hasattr(module, 'load_resume_state'):
            module.load_resume_state = load_resume_state
            # the trainer makes its sampler of four arguments; resuming needs the options too
            module.EnlargedSampler = functools.partial(TrainSampler, opt=opt)


def _protocol_argument(argv: list[str]) -> tuple[str | None, list[str]]:
    """Takes our ``--protocol NAME`` out of the arguments, wherever it stands; BasicSR would refuse it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--protocol', metavar='NAME')
    given, rest = parser.parse_known_args(argv)
    return given.protocol, rest


def _torchrun_arguments(argv: list[str]) -> list[str]:
    """Accepts both spellings of local rank, and detects torchrun by the variables it sets."""
    argv = [a.replace('--local-rank', '--local_rank', 1) if a.startswith('--local-rank') else a for a in argv]
    under_torchrun = {'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'} <= os.environ.keys()
    if under_torchrun and not any(a == '--launcher' or a.startswith('--launcher=') for a in argv):
        # first, because BasicSR's --force_yml takes all that follows it
        argv = ['--launcher', 'pytorch', *argv]
    return argv


def show_errors_in_one_line() -> None:
    """Makes the interpreter print a DBLRError as one line; any other exception keeps its traceback."""
    if sys.excepthook is not _show:
        global _previous_hook
        _previous_hook = sys.excepthook
        sys.excepthook = _show


_previous_hook = sys.excepthook


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, DBLRError):
        # an error that crossed from a loader's worker carries the worker's traceback in front of it
        sys.stderr.write(f'dblr: error: {str(error).rsplit("DBLRError: ", 1)[-1].strip()}\n')
    else:
        _previous_hook(kind, error, trace)
