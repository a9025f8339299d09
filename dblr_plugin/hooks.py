"""Where the plugin takes hold of BasicSR's ``train.py`` and ``test.py``, stock or ours.

``parse_options`` is the first thing both programs call, and is looked up when they start. Ours checks the option
file, understands torchrun, ``--set`` and ``--protocol``, calls BasicSR's, and puts our parts of training in place.
Runs whose model is not ours are left to BasicSR.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from basicsr.utils import options as basicsr_options

from dblr_plugin.compat import repair_distributed
from dblr_plugin.console import never_fail_to_print, printable
from dblr_plugin.errors import DBLRError
from dblr_plugin.training.failures import PEER_ENDED, explain

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
    """BasicSR's ``parse_options`` with the options checked first, and torchrun understood.

    ``--set KEY=VALUE ...``, ``--force_yml KEY:KEY=VALUE ...`` and ``--protocol NAME`` may stand anywhere among the
    arguments. BasicSR gets the options as they were checked; ``sys.argv`` stays what the user typed.

    Raises:
        DBLRError: For faulty options, or what this machine cannot run.
    """
    # these import the registries, which may still be filling when this module is imported
    from dblr_plugin.options import check_option_file, check_options, is_ours, take_overrides

    never_fail_to_print()  # the stock commands begin here
    show_errors_in_one_line()
    overrides, arguments = take_overrides(sys.argv[1:])
    path = _option_file(arguments)
    options = None if path is None else check_option_file(path, is_train, overrides)
    if options is not None:
        # BasicSR would hand the limit to what does not know it
        repair_distributed(options.get('dist_params', {}).pop('timeout', None))
    with _basicsr_reading(options):  # --force_yml is for BasicSR where the model is its own
        opt, args = _run_basicsr_parser(sys.argv[1:] if options is None else arguments, root_path, is_train)
    parsed_options.clear()
    parsed_options.update(opt)
    if is_ours(opt):
        check_options(opt)
        _take_part(opt)
    return opt, args


def _take_part(opt: dict) -> None:
    """Puts our parts in place of BasicSR's, in its programs or the stock commands."""
    from dblr_plugin.training import run_log, trainer

    for name in ('__main__', 'basicsr.train', 'basicsr.test'):
        module = sys.modules.get(name)
        if hasattr(module, 'train_pipeline') or hasattr(module, 'test_pipeline'):
            run_log.patch_trainer(module)
        if opt['is_train'] and hasattr(module, 'load_resume_state'):
            trainer.patch_trainer(module, opt)
    if opt['is_train'] and not opt['datasets']['train']['num_worker_per_gpu']:
        opt['datasets']['train']['persistent_workers'] = False  # torch's loader refuses it without workers


def _option_file(arguments: list[str]) -> str | None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('-opt')
    return parser.parse_known_args(arguments)[0].opt


def _run_basicsr_parser(arguments: list[str], root_path: str, is_train: bool) -> tuple[dict, argparse.Namespace]:
    """Has BasicSR parse these arguments; the user's own, which it writes into the run's option file, are kept."""
    typed = sys.argv
    sys.argv = [typed[0], *_torchrun_arguments(arguments)]
    try:
        return _basicsr_parse_options(root_path, is_train)
    finally:
        sys.argv = typed


@contextlib.contextmanager
def _basicsr_reading(options: dict | None) -> Iterator[None]:
    """Gives BasicSR these options whatever file it reads, or with None what is in the file, read by our loader.

    BasicSR's own would run code that a file names. All its versions ask ``ordered_yaml`` for YAML's loader.
    """
    from dblr_plugin.options.located import parse

    class Loader:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def get_single_data(self) -> dict:
            if options is not None:
                return options
            is_text = isinstance(self.stream, str)
            return parse(self.stream if is_text else self.stream.read(), getattr(self.stream, 'name', 'YAML')).plain()

        def dispose(self) -> None:
            pass

    original = basicsr_options.ordered_yaml
    basicsr_options.ordered_yaml = lambda: (Loader, None)
    try:
        yield
    finally:
        basicsr_options.ordered_yaml = original


def _torchrun_arguments(argv: list[str]) -> list[str]:
    """Accepts both spellings of local rank, and detects torchrun by the variables it sets."""
    argv = [a.replace('--local-rank', '--local_rank', 1) if a.startswith('--local-rank') else a for a in argv]
    under_torchrun = {'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'} <= os.environ.keys()
    if under_torchrun and not any(a == '--launcher' or a.startswith('--launcher=') for a in argv):
        # first, because BasicSR's --force_yml, which is left to it for its own models, takes all that follows it
        argv = ['--launcher', 'pytorch', *argv]
    return argv


def show_errors_in_one_line() -> None:
    """Makes the interpreter print a DBLRError, and what torch says of common mishaps, as one line.

    Any other exception keeps its traceback.
    """
    if sys.excepthook is not _show:
        global _previous_hook
        _previous_hook = sys.excepthook
        sys.excepthook = _show


_previous_hook = sys.excepthook


def _is_first_to_tell(meaning: str) -> bool:
    """Whether no other process that torchrun started with this one has told the same, or what this follows from."""
    own = os.environ.get('TORCHELASTIC_ERROR_FILE')  # in a folder for each process, in one for all of an attempt
    if own is None:
        return True
    folder = Path(own).parents[1]
    if meaning == PEER_ENDED and any(folder.glob('told_*')):
        return False
    told = folder / f'told_{hashlib.sha256(meaning.encode()).hexdigest()}'
    try:
        told.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # rather twice than never
        return True
    return True


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # torchrun tells a process to stop when another has failed, and a training run would promise to save
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if issubclass(kind, DBLRError):
        # an error that crossed from a loader's worker carries the worker's traceback in front of it
        meaning = str(error).rsplit('DBLRError: ', 1)[-1].strip()
    else:
        path = parsed_options.get('path', {})
        meaning = explain(error, path.get('experiments_root') or path.get('results_root') or '')
    if meaning is None:
        _previous_hook(kind, error, trace)
    elif _is_first_to_tell(meaning):
        sys.stderr.write(f'dblr: error: {printable(meaning)}\n')
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
