"""Many runs of the trainer without the seconds that its imports take: forks of one process that has done them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


class WarmPython:
    """A process that has imported the trainer; each run is a fork of it, one at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
        self.server = subprocess.Popen([sys.executable, __file__], env=environment, text=True, **pipes)

    def close(self) -> None:
        """Ends the process."""
        self.server.communicate()

    def train(self, options: Path, cwd: Path, *arguments: str) -> Run:
        """Starts ``python -m dblr_plugin.train -opt OPTIONS ARGUMENTS`` there."""
        log = cwd / 'output.txt'
        pid = self.ask(cwd=str(cwd), argv=['-opt', str(options), *arguments], log=str(log))
        return Run(self, pid, log)

    def ask(self, **request: object) -> int:
        """Sends a request and returns its answer, a number."""
        self.server.stdin.write(json.dumps(request) + '\n')
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


class Run:
    """A training that goes on."""

    def __init__(self, warm: WarmPython, pid: int, log: Path) -> None:
        self.warm = warm
        self.pid = pid
        self.log = log

    @property
    def output(self) -> str:
        """What it has printed so far, stdout and stderr."""
        return self.log.read_text() if self.log.exists() else ''

    def until(self, condition: Callable[[], bool], timeout: float = 120) -> bool:
        """Waits for something to happen; False if the run has ended before."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self.warm.ask(ended=True):
                return False
            assert time.monotonic() < deadline, self.output
            time.sleep(2e-4)
        return True

    def kill(self) -> int:
        """``kill -9``; returns the exit code, negative for a signal."""
        os.kill(self.pid, signal.SIGKILL)  # the number is not given to another process before wait()
        return self.wait()

    def wait(self) -> int:
        """Waits for the end; returns the exit code, negative for a signal."""
        return self.warm.ask(wait=True)


def _serve() -> None:
    import dblr_plugin.train

    pid = 0
    for line in sys.stdin:
        request = json.loads(line)
        if 'argv' in request:
            pid = os.fork()
            if pid == 0:
                _become_a_run(request, dblr_plugin.train.main)
            answer = pid
        elif 'ended' in request:
            answer = int(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(answer, flush=True)


def _become_a_run(request: dict, main: Callable[[], None]) -> None:
    """What the interpreter does for a program, up to its exit code."""
    log = os.open(request['log'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request['cwd'])
    sys.argv[1:] = request['argv']
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    _serve()
