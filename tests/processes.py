"""Runs commands: in a new process, or in a fork of a process that has already imported them, which is faster."""

from __future__ import annotations

import atexit
import functools
import importlib
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml

import dblr_plugin

_LATE = ('av', 'pytest', 'processes', 'torch.utils.tensorboard')


def write_options(path: Path, options: dict) -> Path:
    """Writes an option file and returns its path; keeps the order of the keys."""
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def free_port() -> int:
    """Returns an unused port."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def run_python(*args: object, cwd: Path, timeout: float = 240, **env: str) -> subprocess.CompletedProcess:
    """Runs this interpreter with one thread and captures its output as text."""
    command = [sys.executable, *map(str, args)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **env}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def torchrun(processes: int, *args: object) -> list[object]:
    """Returns arguments for :func:`run_python` that start torchrun with a free port."""
    return ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}', *args]


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[None]:
    """Locks a folder, which is made if missing, as another training or preparation does."""
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        'import fcntl, sys\nfile = open(".lock", "w")\nfcntl.lockf(file, fcntl.LOCK_EX)\nprint(flush=True)\n'
        'sys.stdin.read()'
    )
    command = [sys.executable, '-c', code]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        yield


# ---------------------------------------------------------------------- forks of a warm process


@functools.cache
def warm() -> ForkServerContext:
    """Returns a context that forks processes from one that has imported all commands; it ends with this process.

    That process has a single thread. The process that runs the tests may have more, and a fork of it could hang.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([*_modules(), *_LATE, 'dblr_plugin.frozen'])
    before = dict(os.environ)
    os.environ |= {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ |= before
    return context


def _modules() -> list[str]:
    """Returns our modules, but not those of the page: gradio takes seconds to import, and few tests need it.

    pkgutil would import the packages here, and with one of them MMEngine.
    """
    root = Path(dblr_plugin.__file__).parent
    paths = (path.relative_to(root.parent).with_suffix('') for path in sorted(root.rglob('*.py')))
    return ['.'.join(path.parts) for path in paths if path.name[:2] != '__' and 'page' not in path.parts]


class Run:
    """``dblr ARGUMENTS`` in a folder, in a fork of the warm process with its own process group, as in a shell.

    The run is killed when this object is deleted, so that a failed test leaves no process. ``program`` is the module
    whose ``main`` is run.
    """

    def __init__(self, *arguments: object, cwd: Path, program: str = 'dblr_plugin.commands', **env: str) -> None:
        self._outputs = tempfile.TemporaryDirectory()
        target = [program, [*map(str, arguments)], str(cwd), env, self._outputs.name]
        self._process = warm().Process(target=_become_a_run, args=target)
        self._process.start()
        weakref.finalize(self, _end, self._process)
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """The standard output so far."""
        return self._printed('stdout')

    @property
    def stderr(self) -> str:
        """The standard error so far: log, progress and errors."""
        return self._printed('stderr')

    def _printed(self, name: str) -> str:
        path = Path(self._outputs.name, name)
        return path.read_text(errors='replace') if path.exists() else ''

    def until(self, condition: Callable[[], Any], timeout: float = 120, every: float = 0.01) -> bool:
        """Waits for a condition, checked every ``every`` seconds; returns False if the run ends first."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self._process.exitcode is not None:
                return False
            assert time.monotonic() < deadline, self.stderr
            time.sleep(every)
        return True

    def kill(self) -> int:
        """Kills the run with SIGKILL; returns the exit code, negative for a signal."""
        self._process.kill()
        return self.wait()

    def wait(self, timeout: float = 240) -> int | None:
        """Waits for the end; returns the exit code, negative for a signal, or None if the run hung and was killed."""
        self._process.join(timeout)
        code = self._process.exitcode
        _end(self._process)
        return code


def _end(process: BaseProcess) -> None:
    """Kills a run that has not ended, and the processes that it started."""
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()


def dblr(
    *arguments: object, cwd: Path, processes: int = 1, timeout: float = 240, **env: str
) -> subprocess.CompletedProcess:
    """Runs ``dblr ARGUMENTS`` to its end in one or more forks of the warm process, several as torchrun starts them.

    For several processes, the outputs are concatenated, and the exit code is that of the first that failed.
    """
    runs = start_ranks([cwd] * processes, *arguments, **env) if processes > 1 else [Run(*arguments, cwd=cwd, **env)]
    codes = [run.wait(timeout) for run in runs]
    outputs = (''.join(getattr(run, name) for run in runs) for name in ('stdout', 'stderr'))
    return subprocess.CompletedProcess(arguments, next((code for code in codes if code != 0), 0), *outputs)


def start_ranks(folders: Sequence[Path], *arguments: object, **env: str) -> list[Run]:
    """Starts ``dblr ARGUMENTS`` in each folder, with the variables that torchrun sets."""
    shared = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free_port()), 'WORLD_SIZE': str(len(folders)), **env}
    return [
        Run(*arguments, cwd=folder, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank, folder in enumerate(folders)
    ]


def _become_a_run(program: str, arguments: list[str], cwd: str, env: dict[str, str], outputs: str) -> None:
    """Does in a fork what the interpreter does for a program, from its start to its exit code."""
    multiprocessing.set_start_method(None, force=True)  # the program starts its own processes with the default method
    os.setpgid(0, 0)
    for number, name in enumerate(('stdout', 'stderr'), start=1):
        os.dup2(os.open(os.path.join(outputs, name), os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ |= env
    sys.argv = ['dblr', *arguments]
    if program != 'dblr_plugin.commands':  # python -m, which finds modules beside it
        sys.path.insert(0, cwd)

    try:
        importlib.import_module(program).main()
    except SystemExit:
        raise
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Limits the size of files that this process writes, to simulate a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
