"""The ``dblr`` command without the seconds that its imports take: each run is a fork of a process that has done them.

The process is one of its own, as pytest's may have threads, which do not survive a fork.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from processes import run_python

__all__ = ['ForkedCommand', 'Outcome', 'run_freshly']

_LATE = ('dblr_plugin.training.trainer', 'av', 'torch.utils.tensorboard')


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its exit code, negative for a signal and None for one that hung and was killed."""

    code: int | None
    stdout: str
    stderr: str


class ForkedCommand:
    """A process that runs ``dblr`` as often as it is asked to, one run at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, sys.path))
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
        self._server = subprocess.Popen([sys.executable, __file__], env=environment, text=True, **pipes)

    def close(self) -> None:
        """Ends the process."""
        self._server.communicate()

    def run(self, argv: list[str], cwd: Path, log: Path, limit: float = 60) -> Outcome:
        """Runs ``dblr ARGV`` in a folder; what it prints passes through files named after ``log``."""
        outputs = [log.with_suffix(suffix) for suffix in ('.out', '.err')]
        request = {'argv': argv, 'cwd': str(cwd), 'outputs': list(map(str, outputs)), 'limit': limit}
        self._server.stdin.write(json.dumps(request) + '\n')
        self._server.stdin.flush()
        code = json.loads(self._server.stdout.readline())
        return Outcome(code, *(path.read_text(errors='replace') for path in outputs))


def run_freshly(argv: list[str], cwd: Path, limit: float = 60) -> Outcome:
    """Runs ``python -m dblr_plugin ARGV`` as a user does."""
    result = run_python('-m', 'dblr_plugin', *argv, cwd=cwd, timeout=limit)
    return Outcome(result.returncode, result.stdout, result.stderr)


def _serve() -> None:
    main = _import_everything()
    gc.freeze()  # a run's garbage collection would copy all memory that it shares with this process
    for line in sys.stdin:
        assert len(os.listdir('/proc/self/task')) == 1, 'only a process of one thread can be forked safely'
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_a_run(request, main)
        print(json.dumps(_wait(pid, request['limit'])), flush=True)


def _import_everything() -> Callable[[], None]:
    """Imports the commands, and what they and BasicSR import late; returns the command's function."""
    from dblr_plugin import commands

    names = [module.name for module in pkgutil.iter_modules(commands.__path__, 'dblr_plugin.commands.')]
    for name in (*names, 'dblr_plugin.train', 'dblr_plugin.test', 'dblr_plugin.options', *_LATE):
        importlib.import_module(name)
    return commands.main


def _wait(pid: int, limit: float) -> int | None:
    """Waits for the end of a run; kills it, and the processes it has started, when its time is over."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(2e-3)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _become_a_run(request: dict, main: Callable[[], None]) -> None:
    """What the interpreter does for a program, from its start to its exit code."""
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(request['outputs'], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(request['cwd'])
    sys.argv = ['dblr', *request['argv']]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    _serve()
