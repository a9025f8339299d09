"""Runs each training in its own process, so that a crash fails only one method and a stopped training can resume."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from dblr_plugin.benchmark.methods import Method
from dblr_plugin.benchmark.record import code_checksums, data_checksums, fingerprint_of, keep, kept, sha256
from dblr_plugin.errors import DBLRError, on_one_line
from dblr_plugin.files import write_whole
from dblr_plugin.version import __version__

__all__ = ['train', 'trained', 'write_options']

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # for Linux's prctl


def trained(method: Method) -> dict | None:
    """Returns the record of a finished training if it matches the options and its weights exist."""
    record = kept(method.folder.training, _fingerprint(method))
    is_done = record is not None and record['sha256'] is not None and record['sha256'] == sha256(method.weights)
    return record if is_done else None


def train(method: Method, processes: int) -> dict:
    """Trains a method, or resumes a training with the same options.

    Args:
        method: A method that is trained.
        processes: Number of training processes, started by torchrun.

    Returns:
        The record: ``sha256`` of the weights, ``seconds``, ``processes`` (None if their number changed), ``version``.

    Raises:
        DBLRError: Training failed; the message is its last output.
        SystemExit: This process received a signal, and the training was saved and stopped.
    """
    folder = method.folder
    write_options(folder.train_options, method.training, folder.train_command)
    fingerprint = _fingerprint(method)
    earlier = kept(folder.training, fingerprint)
    as_before = earlier is None or earlier.get('processes', processes) == processes
    begun = {'seconds': 0.0, **(earlier or {}), 'sha256': None, 'processes': processes if as_before else None}
    record = keep(folder.training, fingerprint, begun)
    arguments = ['-opt', str(folder.train_options), *(['--auto_resume'] if earlier else [])]
    start = time.perf_counter()
    try:
        _run(_program(processes) + arguments, method, append=earlier is not None)
    finally:
        record['seconds'] += time.perf_counter() - start
        keep(folder.training, fingerprint, record)
    record |= {'sha256': sha256(method.weights), 'version': __version__}
    return keep(folder.training, fingerprint, record)


def write_options(path: Path, options: dict, command: str) -> None:
    """Writes an option file, headed by the command that uses it."""
    write_whole(path, f'# {command}\n' + yaml.safe_dump(options, sort_keys=False))


def _fingerprint(method: Method) -> str:
    """Identifies what the weights depend on; how and on what they are validated is not part of it."""
    options = {key: value for key, value in method.training.items() if key not in ('datasets', 'val')}
    train_set = method.training['datasets']['train']
    starts = {key: path for key, path in method.training['path'].items() if key.startswith('pretrain_network_')}
    return fingerprint_of(
        {
            'options': options | {'train_set': train_set},
            'code': code_checksums(method.training),
            'data': data_checksums(train_set),
            'starts': {key: sha256(Path(path)) for key, path in starts.items() if path},
        }
    )


def _program(processes: int) -> list[str]:
    module = ['-m', 'dblr_plugin.train']
    if processes > 1:
        module = ['-m', 'dblr_plugin.launch', '--standalone', f'--nproc_per_node={processes}', *module]
    return [sys.executable, *module]


def _run(command: list[str], method: Method, append: bool) -> None:
    """Runs a training to its end, logging its output and showing iterations as a progress bar."""
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    output: dict[str, Any] = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT, 'text': True, 'errors': 'replace'}
    lines: list[str] = []
    total = method.training['train']['total_iter']
    with (
        open(method.folder.train_log, 'ab' if append else 'wb', buffering=0) as log,
        tqdm(total=total, desc=method.name, unit='iter', disable=None) as bar,
        subprocess.Popen(command, env=environment, preexec_fn=_end_with_parent(), **output) as process,
        _signals_to(process) as received,
    ):
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            with contextlib.suppress(OSError):  # a failing log must not stop the training
                log.write(line.encode())
            lines = [*lines[-200:], line.rstrip()]
            reached = re.search(r'\biter:\s*([\d,]+)', line)
            if reached:
                bar.update(int(reached[1].replace(',', '')) - bar.n)
        code = process.wait()
    if received:
        raise SystemExit(128 + received[0])
    if code:
        raise DBLRError(f'training failed: {_last_words(lines, code)} ({method.folder.train_log})')


def _end_with_parent() -> Callable[[], object] | None:
    """Returns a preexec_fn: the child gets SIGTERM if this process dies, even by ``kill -9``; None outside Linux."""
    if sys.platform != 'linux':
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, as little is safe after it
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _signals_to(process: subprocess.Popen) -> Iterator[list[int]]:
    """Forwards signals to the training, which saves and stops; yields the list of received signal numbers."""
    received: list[int] = []

    def hand_on(number: int, frame: object) -> None:
        received.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_words(lines: list[str], code: int) -> str:
    """Extracts why a training ended: our own error, else the last line of a traceback, else the last line of output."""
    lines = [re.sub(r'^\[rank\d+\]: ', '', line) for line in lines]  # torchrun's
    own = [number for number, line in enumerate(lines) if line.startswith('dblr: error: ')]
    if own:  # the first one; errors of other processes follow from it
        first, *after = lines[own[0] :]
        faults = takewhile(lambda line: line.startswith('  '), after)
        return on_one_line('\n'.join([first.removeprefix('dblr: error: '), *faults]))
    raised = [line for line in lines if re.match(r'(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b', line)]
    if raised:
        return raised[-1]
    if code < 0:
        return f'ended by signal {-code}'
    return next((line for line in reversed(lines) if line.strip()), f'exit status {code}')
