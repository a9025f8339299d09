"""Terminal output: any text in any encoding, and errors that users can fix as one line."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import re
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import TracebackType
from urllib.error import URLError

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import write_fault

__all__ = [
    'PEER_ENDED', 'explain', 'never_fail_to_print', 'printable', 'quiet', 'show_errors_in_one_line', 'show_log',
    'writes_into',
]  # fmt: skip

# C0 except line breaks and tabs, DEL, C1, and characters that change the writing direction or start a new line
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]')


def never_fail_to_print() -> None:
    r"""Makes consoles print characters that they lack as ``\xe9``, where Python would end the program.

    Warnings are printed without terminal control characters. Streams that the caller has closed become ``/dev/null``:
    the next file to be opened would take a closed one's number, and libraries' messages would be written into it. Once
    standard error is on a full disk or has lost its reader, messages and progress bars are dropped.
    """
    for name in ('stdin', 'stdout', 'stderr'):  # in the order of their numbers, as each takes the lowest one free
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            null = open(number, 'r' if name == 'stdin' else 'w', closefd=False)  # noqa: SIM115  (until the process ends)
            setattr(sys, name, null)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # not a replacement by a notebook or a test
            stream.reconfigure(errors='backslashreplace')
    if type(sys.stderr) is io.TextIOWrapper:
        output = open(sys.stderr.fileno(), 'wb', closefd=False)  # noqa: SIM115  (until the process ends)
        sys.stderr = _Lossy(output, sys.stderr.encoding, sys.stderr.errors, line_buffering=True)
    logging.lastResort = _Warnings(logging.WARNING)


class _Lossy(io.TextIOWrapper):
    """A stream that drops what cannot be written."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class _Warnings(logging.Handler):
    """Prints commands' warnings, which quote text from files, on lines of their own, above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get('tqdm')
        with suppress(OSError, ValueError), bars.tqdm.external_write_mode(sys.stderr) if bars else nullcontext():
            sys.stderr.write(f'{printable(self.format(record))}\n')
            sys.stderr.flush()


def show_log() -> None:
    """Prints the package's log messages of level INFO, too, unless the caller has set up logging."""
    logging.getLogger('dblr_plugin').setLevel(logging.INFO)
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.INFO)


def printable(text: str) -> str:
    r"""Returns untrusted text with terminal control characters escaped.

    >>> printable('\x1b[2Jtrained')
    '\\x1b[2Jtrained'
    """
    return _CONTROL.sub(lambda found: found[0].encode('unicode_escape').decode(), text)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses a library's progress bars, logs, warnings and other output."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action='ignore'), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


#: The message for an error that only follows from that of another process
PEER_ENDED = 'another process of this run has ended; the cause is in its own error, above or on its machine'

# errors of writing rather than reading
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG)

_NO_THREADS = (
    'the system lets this program start no more threads: close other programs, or raise the limit (ulimit -u, ulimit '
    '-v, docker run --pids-limit)'
)

_MEANINGS = {
    # data loader
    r'DataLoader timed out after ([\d.]+) seconds': (
        'no batch came for {0} s: the disk or the network behind the training data does not answer, or is too slow; '
        'fix that, or raise datasets.train.timeout'
    ),
    r'Bus error|out of shared memory|insufficient shared memory': (
        "the data loader's workers ran out of shared memory (/dev/shm): enlarge it (docker run --shm-size=8g), or "
        'lower datasets.train.num_worker_per_gpu'
    ),
    r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal|exited unexpectedly)': (
        'a worker of the data loader (process {0}) was killed, as a rule because memory ran out: lower '
        'datasets.train.num_worker_per_gpu or batch_size_per_gpu'
    ),
    r'Too many open files': (
        'too many files are open: raise the limit (ulimit -n 65536), or lower datasets.train.num_worker_per_gpu'
    ),
    r"can't start new thread": _NO_THREADS,
    # memory
    r'CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED': (
        "the GPU's memory is full: end other programs that use it; in training, lower "
        'datasets.train.batch_size_per_gpu or gt_size, compute batches in parts (train.accumulate: 2), or use mixed '
        'precision (train.amp: bf16)'
    ),
    r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)": (
        'the memory is full: close other programs; in training, lower datasets.train.batch_size_per_gpu, gt_size or '
        'num_worker_per_gpu, or compute batches in parts (train.accumulate: 2)'
    ),
    r'Expected more than 1 value per channel when training': (
        'BatchNorm has a single value per channel, which leaves it nothing to normalise: set '
        'datasets.train.batch_size_per_gpu to 2 or more (times train.accumulate), or train.freeze_bn: true'
    ),
    # other processes
    r'Expected to have finished reduction in the prior iteration': (
        'some weights do not affect the loss, which training with several processes must allow: set '
        'find_unused_parameters: true in the option file'
    ),
    r'Timed out waiting \d+ms for|Application timeout|before timing out|collective operation timeout': (
        'the processes of this run timed out waiting for one of them, which hangs or is much slower (slow data?); find '
        'the cause, or raise dist_params.timeout'
    ),
    r'gloo.*(?:closed by peer|reset by peer|Broken pipe)|remote process (?:has )?exited|ncclRemoteError': PEER_ENDED,
    r'EADDRINUSE|[Aa]ddress already in use': (
        'the port that the processes connect through is in use, perhaps by another run: choose a free one '
        '(--master-port=29501, PORT=29501 for scripts/dist_train.sh, --set dist_params.port=29501 for srun)'
    ),
    r'clients joined|wait timeout after|timed out.* while trying to connect|failed to connect/validate to host': (
        'the processes of this run could not connect to each other: all must be started, with the same number of '
        'nodes, address (MASTER_ADDR) and port, and no firewall may block them'
    ),
}


def explain(error: BaseException, folder: str = '') -> str | None:
    """Returns one sentence that says why training ended and what to do.

    Args:
        error: The exception that ended it.
        folder: The folder that the run writes to, for errors that name no file.

    Returns:
        The sentence; None if only the traceback explains the error.

    >>> explain(RuntimeError('DataLoader timed out after 600 seconds')).split(':')[0]
    'no batch came for 600 s'
    >>> explain(RuntimeError('mat1 and mat2 shapes cannot be multiplied')) is None
    True
    """
    if isinstance(error, KeyboardInterrupt):
        return 'interrupted'
    if isinstance(error, OSError) and error.errno == errno.EAGAIN:
        return _NO_THREADS
    if isinstance(error, OSError) and _is_of_a_semaphore(error):
        return (
            f'processes cannot share memory here ({error.strerror}): make /dev/shm writable and larger, or, in '
            'training, set datasets.train.num_worker_per_gpu: 0'
        )
    if isinstance(error, URLError):  # of the weights of a perceptual loss
        return f'a file cannot be downloaded ({error.reason}); the line "Downloading" above says where to put it'
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:  # BasicSR's own files
        unnamed = f'a file below {folder}' if folder else 'a file'
        return str(write_fault(error.filename2 or error.filename or unnamed, error))
    # torch's errors are RuntimeErrors, except for BatchNorm's
    if not isinstance(error, RuntimeError | ValueError):
        return None
    # the messages of its causes too: only the cause says what killed a loader worker
    text = ''.join(traceback.format_exception(error, limit=0))
    for pattern, meaning in _MEANINGS.items():
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return meaning.format(*found.groups())
    return None


def _is_of_a_semaphore(error: OSError) -> bool:
    modules = [frame.f_globals.get('__name__') for frame, _ in traceback.walk_tb(error.__traceback__)]
    return modules[-1:] == ['multiprocessing.synchronize']


def show_errors_in_one_line() -> None:
    """Makes the interpreter print DBLRErrors, and torch's errors for common mishaps, as one line.

    All other exceptions keep their traceback.
    """
    if sys.excepthook is not _show:
        global _previous_hook
        _previous_hook = sys.excepthook
        sys.excepthook = _show


def writes_into(folder: str) -> None:
    """Sets the folder that this program writes to, for errors that name no file."""
    global _folder
    _folder = folder


_previous_hook = sys.excepthook
_folder = ''


def _is_first_to_tell(meaning: str) -> bool:
    """Returns whether no other process of this torchrun has reported the same error, or the one this follows from."""
    own = os.environ.get('TORCHELASTIC_ERROR_FILE')  # in a folder per process, inside one for all of an attempt
    if own is None:
        return True
    folder = Path(own).parents[1]
    if meaning == PEER_ENDED and any(folder.glob('told_*')):
        return False
    told = folder / f'told_{hashlib.sha256(meaning.encode()).hexdigest()}'
    try:
        told.touch(exist_ok=False)
    except OSError as error:  # better twice than never
        return not isinstance(error, FileExistsError)
    return True


def _tell_torchrun(meaning: str) -> None:
    """Makes torchrun's summary show an error as the root cause, in place of "To enable traceback see"."""
    own = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if own is not None and meaning != PEER_ENDED:
        extra = {'timestamp': str(int(time.time()))}
        with suppress(OSError):
            Path(own).write_text(json.dumps({'message': {'message': meaning, 'extraInfo': extra}}))


def _nobody_reads() -> bool:
    """Returns whether standard output is a pipe closed by its reader, as ``head`` does once it has enough."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushing the buffer would raise another error
    return closed


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, BrokenPipeError) and _nobody_reads():
        return
    # torchrun terminates the other processes when one has failed, and a training run would then promise to save
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    meaning: str | None
    if issubclass(kind, DBLRError):
        # an error from a loader worker has the worker's traceback in front
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
