"""Trains and compares DBLRNet and DBLRGAN on real footage: data, training, test, figures and pictures.

    python scripts/demo.py          the demo: about ten minutes on two CPU cores
    python scripts/demo.py --fast   a smoke run of the same steps in about a minute; its figures mean nothing

Everything is written below the working directory (``--fast``: below results/demo_fast): the clips to datasets/demo,
the trainings to experiments/demo_*, the tests to results/demo_test_*, table, pictures and summary to results/demo.
Clips that are complete are reused. Stopped (Ctrl-C) and run again, it goes on where it was, in the middle of a training
too; run again after its end, trainings and tests are done anew, and BasicSR archives the old ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from demo_clips import find_footage, make_clips
from demo_pictures import draw_comparison, draw_curves
from demo_report import METHODS, check_gain, format_table, read_figures, write_summary

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import write_whole

OPTIONS = Path(__file__).resolve().parent.parent / 'options'

FAST_WINDOW = (128, 192)
# What --fast changes in the option files, where they have the key.
FAST_OPTIONS = {
    'datasets:train:gt_size': 32,
    'network_g:num_feat': 8,
    'network_g:num_block': 1,
    'network_d:num_feat': 4,
    'network_d:num_fc': 8,
    'train:total_iter': 4,
    'train:scheduler:periods': [4],
    'train:warmup_iter': -1,
    'val:val_freq': 2,
    'logger:print_freq': 1,
    'logger:save_checkpoint_freq': 4,
}


class Progress:
    """What a demo that was stopped has done: the steps in order, each with its seconds; the last may be unfinished.

    Args:
        path: The file that says so; it is removed at the end.
        options: All option files; where one has changed, nothing counts as done.
    """

    def __init__(self, path: Path, options: list[Path]) -> None:
        self.path = path
        self.fingerprint = hashlib.sha256(b''.join(file.read_bytes() for file in options)).hexdigest()
        self.begun: list[str] = []
        self.seconds: dict[str, float] = {}
        try:
            held = json.loads(path.read_text(encoding='utf-8'))
            if held['fingerprint'] == self.fingerprint:
                self.begun, self.seconds = held['begun'], held['seconds']
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it is damaged: everything is done anew

    def begin(self, step: str) -> None:
        """Notes that a step is under way."""
        self.begun = [*dict.fromkeys([*self.begun, step])]
        self._write()

    def finish(self, step: str, seconds: float) -> None:
        """Notes that a step is done."""
        self.seconds[step] = round(seconds, 1)
        self._write()

    def _write(self) -> None:
        held = {'fingerprint': self.fingerprint, 'begun': self.begun, 'seconds': self.seconds}
        write_whole(self.path, json.dumps(held))


class Demo:
    """The demo's steps, all below one folder.

    Args:
        root: Folder that everything is written to; the option files' paths are relative to it.
        fast: Whether to take the steps with tiny frames, networks and trainings.
    """

    def __init__(self, root: Path, fast: bool) -> None:
        self.root = root
        self.fast = fast
        names = [name for method in METHODS for name in (method.training, method.test) if name]
        self.option_files = {name: self._option_file(name) for name in names}
        self.progress = Progress(root / 'results/demo_progress.json', list(self.option_files.values()))

    def run(self) -> None:
        """Takes all steps.

        Raises:
            DBLRError: A step failed, or DBLRNet did not beat the blurry input.
            KeyboardInterrupt: A signal came; a training has saved before.
        """
        with self._timed('clips'):
            window = FAST_WINDOW if self.fast else None
            recipe = make_clips(find_footage(), self.root / 'datasets/demo', window)
        for method in METHODS:
            if method.training:
                self._plugin('train', method.training)
        for method in METHODS:
            self._plugin('test', method.test)
        self._report(recipe)
        self.progress.path.unlink()

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.progress.finish(step, time.perf_counter() - start)

    def _plugin(self, program: str, name: str) -> None:
        """Runs ``python -m dblr_plugin.train`` or ``.test``, as a user would type it, on ``options/<name>.yml``."""
        if name in self.progress.seconds:
            print(f'\n{program} {name}: done before it was stopped')
            return
        option_file = os.path.relpath(self.option_files[name], self.root)
        goes_on = program == 'train' and name in self.progress.begun
        arguments = ['-m', f'dblr_plugin.{program}', '-opt', option_file, *(['--auto_resume'] if goes_on else [])]
        print(f'\n$ {shlex.join(["python", *arguments])}', flush=True)
        self.progress.begin(name)
        with self._timed(name):
            code = _run([sys.executable, *arguments], self.root)
            if code:
                raise DBLRError(f'{program} {name} ended with exit status {code}; the reason stands above')

    def _option_file(self, name: str) -> Path:
        path = OPTIONS / f'{name}.yml'
        if not self.fast:
            return path
        options = yaml.safe_load(path.read_text())
        for key, value in FAST_OPTIONS.items():
            _replace(options, key.split(':'), value)
        derived = self.root / 'options' / path.name
        write_whole(derived, yaml.safe_dump(options, sort_keys=False))
        return derived

    def _report(self, recipe: dict) -> None:
        figures = read_figures(self.root)
        out = self.root / 'results/demo'
        table = format_table(figures)
        write_whole(out / 'table.txt', table + '\n')
        draw_comparison(self.root, figures, out / 'comparison.png')
        draw_curves(self.root, figures, out / 'training.png')
        write_summary(out / 'summary.json', figures, recipe, self.progress.seconds, self.fast)
        print(f'\n{table}\n')
        for path in sorted(out.iterdir()):
            print(path)
        if not self.fast:
            check_gain(figures)


def _run(command: list[str], folder: Path) -> int:
    """Runs a program to its end and returns its exit code; signals are handed on to it, which may save first.

    Raises:
        KeyboardInterrupt: A signal came.
    """
    received = []
    # a group of its own: the terminal would send it Ctrl-C a second time
    with subprocess.Popen(command, cwd=folder, process_group=0) as process:

        def hand_on(number: int, frame: object) -> None:
            received.append(number)
            process.send_signal(number)

        before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
    return code


def _replace(options: dict, keys: list[str], value: Any) -> None:
    """Replaces a nested value; leaves options that lack the key alone."""
    for key in keys[:-1]:
        options = options.get(key, {})
    if keys[-1] in options:
        options[keys[-1]] = value


def main() -> None:
    """Parses the arguments and runs the demo; a failure is one line and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--fast', action='store_true', help='smoke run in about a minute; its figures mean nothing')
    fast = parser.parse_args().fast
    try:
        Demo(Path('results/demo_fast') if fast else Path(), fast).run()
    except DBLRError as error:
        sys.exit(f'demo: {error}')
    except KeyboardInterrupt:
        print('\ndemo: stopped; the same command goes on from here', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
