"""Trains and compares DBLRNet and DBLRGAN on real footage: data, training, test, figures and pictures.

    python scripts/demo.py          the demo: about ten minutes on two CPU cores
    python scripts/demo.py --fast   a smoke run of the same steps in about a minute; its figures mean nothing

Everything is written below the working directory (``--fast``: below results/demo_fast): the clips to datasets/demo,
the trainings to experiments/demo_*, the tests to results/demo_test_*, table, pictures and summary to results/demo.
Clips that are complete are reused; trainings and tests run anew, and BasicSR archives the old ones.
"""

from __future__ import annotations

import argparse
import os
import shlex
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


class Demo:
    """The demo's steps, all below one folder.

    Args:
        root: Folder that everything is written to; the option files' paths are relative to it.
        fast: Whether to take the steps with tiny frames, networks and trainings.
    """

    def __init__(self, root: Path, fast: bool) -> None:
        self.root = root
        self.fast = fast
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        """Takes all steps.

        Raises:
            DBLRError: A step failed, or DBLRNet did not beat the blurry input.
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

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 1)

    def _plugin(self, program: str, name: str) -> None:
        """Runs ``python -m dblr_plugin.train`` or ``.test``, as a user would type it, on ``options/<name>.yml``."""
        option_file = os.path.relpath(self._option_file(name), self.root)
        arguments = ['-m', f'dblr_plugin.{program}', '-opt', option_file]
        print(f'\n$ {shlex.join(["python", *arguments])}', flush=True)
        with self._timed(name):
            code = subprocess.run([sys.executable, *arguments], cwd=self.root, check=False).returncode
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
        derived.parent.mkdir(parents=True, exist_ok=True)
        derived.write_text(yaml.safe_dump(options, sort_keys=False))
        return derived

    def _report(self, recipe: dict) -> None:
        figures = read_figures(self.root)
        out = self.root / 'results/demo'
        out.mkdir(parents=True, exist_ok=True)
        table = format_table(figures)
        (out / 'table.txt').write_text(table + '\n')
        draw_comparison(self.root, figures, out / 'comparison.png')
        draw_curves(self.root, figures, out / 'training.png')
        write_summary(out / 'summary.json', figures, recipe, self.seconds, self.fast)
        print(f'\n{table}\n')
        for path in sorted(out.iterdir()):
            print(path)
        if not self.fast:
            check_gain(figures)


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


if __name__ == '__main__':
    main()
