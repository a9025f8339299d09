"""Clips that are restored one after the other, in a temporary folder that is gone in the end."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from dblr_plugin.errors import DBLRError
from dblr_plugin.page.preview import Preview, restore_preview
from dblr_plugin.restore.backends import is_out_of_memory
from dblr_plugin.restore.video_restorer import VideoRestorer

__all__ = ['Job', 'Jobs']

_log = logging.getLogger(__name__)
_plugin_log = logging.getLogger('dblr_plugin')

_UPLOADING, _WAITING, _RESTORING, _DONE, _FAILED = 'uploading', 'waiting', 'restoring', 'done', 'failed'
_LONGEST_NAME = 50  # characters, of up to four bytes each


class Job:
    """A clip on its way from the upload to the result.

    Args:
        root: The folder in which its own is made.
        name: The clip's, as the browser tells it.
        size: Bytes that will be uploaded.
        start: Seconds into a video.
        length: Seconds from there; None for all that follow.
    """

    def __init__(self, root: Path, name: str, size: int, start: Fraction, length: Fraction | None) -> None:
        self.id = secrets.token_urlsafe(16)
        self.folder = root / self.id
        self.clip = self.folder / 'clip' / _safe(name)
        self.clip.parent.mkdir(parents=True)
        self.size, self.start, self.length = size, start, length
        self.state = _UPLOADING
        self.done = self.total = 0
        self.first_done = self.last_done = 0.0
        self.preview: Preview | None = None
        self.error: str | None = None
        self.notes: list[str] = []
        self.cancelled = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing works on it any more."""
        return self.state in (_DONE, _FAILED)

    def report(self, done: int, total: int) -> None:
        """Takes the progress; raises DBLRError when nobody wants more."""
        if self.cancelled.is_set():
            raise DBLRError('cancelled')
        self.last_done = time.monotonic()
        if done <= 1:  # the first picture also takes what a network does once
            self.first_done = self.last_done
        self.done, self.total = done, total

    def status(self) -> dict[str, Any]:
        """What the page is told, as JSON."""
        seconds = self.last_done - self.first_done
        rate = (self.done - 1) / seconds if self.done > 1 and seconds else None
        return {
            'state': self.state,
            'done': self.done,
            'total': self.total,
            'rate': rate,
            'seconds_left': None if rate is None else (self.total - self.done) / rate,
            'error': self.error,
            'notes': self.notes,
            'aspect': None if self.preview is None else self.preview.aspect,
            'times': None if self.preview is None else self.preview.times,
        }

    def run(self, restorer: VideoRestorer) -> None:
        """Restores the clip; whatever goes wrong becomes a sentence."""
        self.state = _RESTORING
        notes = _Notes()
        _plugin_log.addHandler(notes)
        try:
            self.preview = restore_preview(restorer, self.clip, self.folder, self.start, self.length, self.report)
        except Exception as error:
            self.error = self._without_folder(_sentence(error))
        finally:
            _plugin_log.removeHandler(notes)
        self.notes = [self._without_folder(text) for text in notes.texts]
        shutil.rmtree(self.clip.parent, ignore_errors=True)
        if self.preview is None:  # whoever hears that it failed finds nothing left
            shutil.rmtree(self.folder, ignore_errors=True)
        self.state = _FAILED if self.preview is None else _DONE
        if self.cancelled.is_set():  # before it had ended, so that removing it left its files to this thread
            shutil.rmtree(self.folder, ignore_errors=True)

    def _without_folder(self, text: str) -> str:
        return re.sub(rf'{re.escape(str(self.folder))}/(clip/)?', '', text)


class Jobs:
    """All jobs, of which one at a time is restored; leaving the context stops and deletes them.

    Args:
        restorer: Restores them.
        max_bytes: The largest clip.

    Attributes:
        folder: Where their files are.
    """

    def __init__(self, restorer: VideoRestorer, max_bytes: int) -> None:
        self._restorer, self._max_bytes = restorer, max_bytes
        self._jobs: dict[str, Job] = {}
        self._thread = ThreadPoolExecutor(1)
        self._temporary = tempfile.TemporaryDirectory(prefix='dblr_page_')
        self.folder = Path(self._temporary.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for job in self._jobs.values():
            job.cancelled.set()
        self._thread.shutdown(cancel_futures=True)
        self._temporary.cleanup()

    def add(self, name: str, size: int, start: Fraction, length: Fraction | None) -> Job:
        """Makes a job, whose clip is yet to come; raises DBLRError where there is no room for it."""
        if size > self._max_bytes:
            raise DBLRError(
                f'{name} has {size / 1e6:.0f} MB, more than the {self._max_bytes / 1e6:.0f} MB that are taken; cut it, '
                'or start dblr demo-page with a larger --max-size'
            )
        if size > shutil.disk_usage(self.folder).free:
            raise DBLRError(
                f'there is no room for {name} in {self.folder.parent}; make room, or set TMPDIR to another folder'
            )
        job = Job(self.folder, name, size, start, length)
        self._jobs[job.id] = job
        return job

    def find(self, job_id: str) -> Job | None:
        """The job of that id."""
        return self._jobs.get(job_id)

    def queue(self, job: Job) -> None:
        """Restores a job whose clip is there, when those before it are done."""
        job.state = _WAITING
        self._thread.submit(job.run, self._restorer)

    def remove(self, job: Job) -> None:
        """Ends a job and deletes its files."""
        del self._jobs[job.id]
        job.cancelled.set()
        if job.state == _UPLOADING or job.ended:
            shutil.rmtree(job.folder, ignore_errors=True)  # what failed has none any more


class _Notes(logging.Handler):
    """Collects warnings, which the page shows too."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _safe(name: str) -> str:
    """A file's name without what a file system or a glob takes for something else."""
    return re.sub(r'[^\w .()+-]', '_', name)[-_LONGEST_NAME:].lstrip(' .') or 'clip'


def _sentence(error: Exception) -> str:
    if isinstance(error, DBLRError):
        return str(error)
    if is_out_of_memory(error):
        return 'memory ran out; start dblr demo-page with --tile 256 or less, or give smaller pictures'
    _log.error('a clip could not be restored', exc_info=error)
    return 'restoring failed unexpectedly; the terminal of dblr demo-page tells more'
