"""The state of an unfinished output: its lock, its settings, and its finished segments.

All of it is in a hidden folder beside the output, which is gone when the output is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, write_fault
from dblr_plugin.video.frames import Source

__all__ = ['AlreadyComplete', 'Existing', 'Unfinished', 'fingerprint']

#: What to do about an older output: replace it, refuse to, or go on where it ends if it is not complete.
Existing = Literal['replace', 'refuse', 'resume']


class AlreadyComplete(DBLRError):
    """There is nothing left to do."""


class Unfinished:
    """Holds an output for this process alone, from when it is made until ``remove`` or ``release``.

    Args:
        folder: The hidden folder; made where it is missing.
        output: Named in messages.
        existing: What to do about an older output.
        settings: What decides how the output looks, as JSON can hold it. An output is gone on with by the same only.
        is_there: Whether there is an older output, or a part of it.

    Raises:
        AlreadyComplete: The older output is complete, and is not to be replaced but resumed.
        DBLRError: Another process is at work on it, it exists, it was begun with other settings, or it cannot be
            written.
    """

    def __init__(
        self, folder: Path, output: Path, existing: Existing, settings: Mapping[str, Any] | None, is_there: bool
    ) -> None:
        self.folder, self.output = folder, output
        self._settings_file = folder / 'settings.json'
        begun = self._settings_file.exists()
        if is_there and not begun and existing == 'resume':
            raise AlreadyComplete(f'{output} is complete; --overwrite restores it again')
        if is_there and not begun and existing == 'refuse':
            raise DBLRError(f'{output} exists; give another output, or --overwrite')
        self._lock = FileLock(folder / 'lock', timeout=0, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._hold()
        except OSError as error:
            raise write_fault(output, error) from error
        try:
            self._begin(existing, dict(settings or {}), is_there)
        except BaseException:
            self.release()
            raise

    def remove(self) -> None:
        """Removes the folder, when the output is complete or nothing of it is worth keeping."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def release(self) -> None:
        """Lets others go on with it."""
        self._lock.release()

    def _hold(self) -> None:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise DBLRError(f'{self.output} is being written by another process; wait for it, or end it') from error
        except NotImplementedError:
            pass  # a file system without locks

    def _begin(self, existing: Existing, settings: dict[str, Any], is_there: bool) -> None:
        begun = self._settings_file.exists() and (is_there or any(self.folder.glob('*.packets')))
        if begun and existing == 'refuse':
            raise DBLRError(
                f'{self.output} was begun and is not complete; go on with --resume, or begin anew with --overwrite'
            )
        if begun and existing == 'resume':
            self._refuse_others(settings)
            return
        for path in self.folder.iterdir():
            if path.name != 'lock':
                path.unlink()
        with atomic_write(self._settings_file) as partial:
            partial.write_text(json.dumps(settings, indent=1))

    def _refuse_others(self, settings: dict[str, Any]) -> None:
        try:
            begun = json.loads(self._settings_file.read_text())
            differing = [name for name in settings | begun if settings.get(name) != begun.get(name)]
        except (OSError, ValueError, TypeError) as error:
            raise DBLRError(
                f'{self._settings_file} is damaged, so that nobody knows how {self.output} was begun; '
                'begin anew with --overwrite'
            ) from error
        if differing:
            raise DBLRError(
                f'{self.output} was begun with other settings ({", ".join(differing)}); give the same, '
                'or begin anew with --overwrite'
            )


def fingerprint(source: Source) -> str:
    """What distinguishes a source from another or a changed one: names, sizes and times of its files."""
    digest = hashlib.sha256()
    for file in getattr(source, 'files', [source.path]):
        facts = os.stat(file)
        digest.update(f'{file.name} {facts.st_size} {facts.st_mtime_ns}\n'.encode())
    return digest.hexdigest()
