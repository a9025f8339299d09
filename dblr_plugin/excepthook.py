"""Shows errors that a user can fix as one line; any other exception keeps its traceback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import TracebackType

from dblr_plugin.console import printable
from dblr_plugin.errors import DBLRError
from dblr_plugin.training.failures import PEER_ENDED, explain

__all__ = ['show_errors_in_one_line', 'writes_into']


def show_errors_in_one_line() -> None:
    """Makes the interpreter print a DBLRError, and what torch says of common mishaps, as one line.

    Any other exception keeps its traceback.
    """
    if sys.excepthook is not _show:
        global _previous_hook
        _previous_hook = sys.excepthook
        sys.excepthook = _show


def writes_into(folder: str) -> None:
    """Says where this program writes, for errors that name no file."""
    global _folder
    _folder = folder


_previous_hook = sys.excepthook
_folder = ''


def _is_first_to_tell(meaning: str) -> bool:
    """Whether no other process that torchrun started with this one has reported the same, or what this follows from."""
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


def _tell_torchrun(meaning: str) -> None:
    """Has torchrun's summary show an error as the root cause, in place of "To enable traceback see"."""
    own = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if own is not None and meaning != PEER_ENDED:
        extra = {'timestamp': str(int(time.time()))}
        with contextlib.suppress(OSError):
            Path(own).write_text(json.dumps({'message': {'message': meaning, 'extraInfo': extra}}))


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # torchrun tells a process to stop when another has failed, and a training run would promise to save
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    meaning: str | None
    if issubclass(kind, DBLRError):
        # an error that crossed from a loader's worker carries the worker's traceback in front of it
        meaning = str(error).rsplit('DBLRError: ', 1)[-1].strip()
    else:
        meaning = explain(error, _folder)
    if meaning is None:
        _previous_hook(kind, error, trace)
    else:
        _tell_torchrun(printable(meaning))
        if _is_first_to_tell(meaning):
            sys.stderr.write(f'dblr: error: {printable(meaning)}\n')
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
