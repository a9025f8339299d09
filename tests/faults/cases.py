"""Cases of damaged inputs, the folder that they are made in, and checks of how a command handles them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from options.changes import changed
from processes import write_options

__all__ = ['Case', 'Desk', 'Spoil', 'complaints']

#: Makes the damaged input of a case and returns the arguments for ``dblr``
Spoil = Callable[['Desk'], list[object]]


@dataclass(frozen=True)
class Case:
    """A damaged input and the command that reads it.

    Attributes:
        name: The family of cases, the damage and mostly the command, such as ``frame-empty-train``.
        spoil: Makes the input.
        culprits: What the error message must name.
        resumable: Whether complete results from before the error may be kept, as documented for ``dblr prepare`` and
            ``dblr deblur``.
        trained: Whether the damage is found only after the training's single iteration, whose checkpoint is complete.
        again: Whether another case has the same damage for a command that reads the file with the same code; such cases
            are run only with ``--thorough``.
    """

    name: str
    spoil: Spoil
    culprits: tuple[str, ...]
    resumable: bool = False
    trained: bool = False
    again: bool = False


class Desk:
    """The folder of a case: ``inputs`` holds damaged inputs, ``cwd`` is where the command runs.

    Args:
        root: A fresh folder.
        supplies: Intact inputs, by name. They are read and copied, but never changed.
        options: Intact options, by name; each case has its own copy.
    """

    def __init__(self, root: Path, supplies: dict[str, Path], options: dict[str, dict]) -> None:
        self.root = root
        self.inputs, self.cwd = root / 'inputs', root / 'cwd'
        self.inputs.mkdir()
        self.cwd.mkdir()
        self.supplies = supplies
        self.options = options

    def copy(self, supply: str, name: str | None = None) -> Path:
        """Copies an intact file or folder into ``inputs``, under its own name or another."""
        source = self.supplies[supply]
        target = self.inputs / (name or source.name)
        if source.is_dir():
            return shutil.copytree(source, target, symlinks=True)
        return Path(shutil.copy(source, target))

    @cached_property
    def clips(self) -> Path:
        """Training clips a and b, of 8 frames each, in folders ``lq`` and ``gt``."""
        return self.copy('clips')

    def frame(self, side: str = 'lq', clip: str = 'b') -> Path:
        """Returns the path of a frame of these clips."""
        return self.clips / side / clip / '00000003.png'

    def mirror(self, supply: str, own: str) -> Path:
        """Links a large intact tree into ``inputs``, except the folder or file ``own``, which is copied."""
        root = self.inputs / supply
        _mirror(self.supplies[supply], root, Path(own).parts)
        return root

    def train(self, lq: Path | None = None, gt: Path | None = None, changes: dict | None = None) -> list[object]:
        """Returns arguments that train an iteration with all windows of the clips; ``changes``: ``a.b.c`` -> value."""
        data = {
            'datasets.train.dataroot_lq': str(lq or self.supplies['clips'] / 'lq'),
            'datasets.train.dataroot_gt': str(gt or self.supplies['clips'] / 'gt'),
        }
        options = self.options['train']
        for trail, value in (data | (changes or {})).items():
            options = changed(options, trail, value)
        return ['train', *self.write(options)]

    def test(self, lq: Path | None = None, gt: Path | None = None, changes: dict | None = None) -> list[object]:
        """Returns arguments that restore and score the clips; ``changes``: ``a.b.c`` -> value."""
        data = {
            'datasets.test.dataroot_lq': str(lq or self.supplies['clips'] / 'lq'),
            'datasets.test.dataroot_gt': str(gt or self.supplies['clips'] / 'gt'),
            'path.pretrain_network_g': str(self.supplies['net']),
        }
        options = self.options['test']
        for trail, value in (data | (changes or {})).items():
            options = changed(options, trail, value)
        return ['test', *self.write(options)]

    def write(self, options: dict, name: str = 'options.yml') -> list[object]:
        """Writes an option file; returns the arguments that name it."""
        return ['-opt', write_options(self.inputs / name, options)]

    def content(self) -> dict[Path, int]:
        """Returns all files and folders with their modification times."""
        return {path: path.lstat().st_mtime_ns for path in self.root.glob('*/**/*')}


def _mirror(source: Path, target: Path, own: tuple[str, ...]) -> None:
    target.mkdir()
    for entry in source.iterdir():
        if entry.name != own[0]:
            (target / entry.name).symlink_to(entry)
        elif len(own) > 1:
            _mirror(entry, target / entry.name, own[1:])
        else:
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, target / entry.name)


def complaints(case: Case, desk: Desk, result: subprocess.CompletedProcess, before: dict[Path, int]) -> list[str]:
    """Returns what a command did wrong with a damaged input.

    Args:
        case: The case.
        desk: Its folder.
        result: How the command ended; its exit code is None if it hung and was killed.
        before: The desk's content before the command ran.
    """
    if result.returncode is None:
        return [f'it hung, having printed {result.stderr[-500:]}']
    found = [] if result.returncode > 0 else [f'the exit code is {result.returncode}']
    if 'Traceback' in result.stdout + result.stderr:
        found.append('there is a traceback')
    # the name of pytest's folder may contain that of the culprit
    found += _about_message(case, result.stderr.replace(str(desk.root), ''))
    after = desk.content()
    changed_paths = [path for path in after if path.is_file() and after[path] != before.get(path)]
    found += [f'{path} has been written' for path in changed_paths if not _may_be_written(case, desk, path)]
    found += [f'{path} is gone' for path in before.keys() - after.keys()]
    return found


def _about_message(case: Case, stderr: str) -> list[str]:
    lines = re.split(r'[\r\n]+', stderr)
    starts = [number for number, line in enumerate(lines) if re.match(r'dblr[ \w-]*: error: ', line)]
    if len(starts) != 1:
        return [f'{len(starts)} lines say "dblr: error: "']
    message = '\n'.join(lines[starts[0] :])
    return [f'the message does not name {culprit}' for culprit in case.culprits if culprit not in message]


def _may_be_written(case: Case, desk: Desk, path: Path) -> bool:
    """Returns whether a command that failed may have written this file."""
    if desk.cwd not in path.parents:
        return False
    if case.resumable:
        # complete frames, a video of them, or files that mark the output as unfinished or lock it
        unfinished = path.name in ('.unfinished.json', '.lock') or path.parent.name.endswith('.partial')
        return unfinished or path.suffix in ('.png', '.jpg', '.mp4')
    if case.trained and path.name in ('net_g_1.pth', 'net_g_latest.pth', '1.state', 'metrics.json'):
        return True
    # a run's lock, its log and a copy of its options are written before its data are read
    return path.suffix in ('.log', '.yml') or path.name == '.lock' or 'tfevents' in path.name
