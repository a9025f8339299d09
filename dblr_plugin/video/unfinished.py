"""The state of an unfinished output: its lock, its settings and, for a video, its finished segments.

It is kept in a hidden folder beside the output, which is removed once the output is complete. Each segment is encoded
independently, so that a video resumed after a complete segment is identical to one that was never interrupted. Packets
are stored as the encoder returned them, with exact timestamps and a checksum.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from filelock import FileLock, Timeout

from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, write_fault
from dblr_plugin.video.frames import Source

if TYPE_CHECKING:
    import av

__all__ = [
    'PICTURES', 'AlreadyComplete', 'Existing', 'KeptPacket', 'Segments', 'Unfinished', 'fingerprint', 'is_begun',
]  # fmt: skip

_log = logging.getLogger(__name__)

#: What to do about an existing output: replace it, refuse to, or resume it if it is incomplete.
Existing = Literal['replace', 'refuse', 'resume']

_SETTINGS = 'settings.json'


def is_begun(folder: Path) -> bool:
    """Returns whether a hidden folder is that of an output that was started."""
    return (folder / _SETTINGS).exists()


class AlreadyComplete(DBLRError):
    """The output is complete; there is nothing left to do."""


class Unfinished:
    """Locks an output for this process, from construction until ``remove`` or ``release``.

    Args:
        folder: The hidden folder; created if missing.
        output: The output's path, for messages.
        existing: What to do about an existing output.
        settings: What determines the output, serialisable as JSON. An output is resumed only with the same settings.
        is_there: Whether the output, or a part of it, exists.

    Raises:
        AlreadyComplete: The existing output is complete, and is to be resumed rather than replaced.
        DBLRError: Another process is writing the output, it exists, it was started with other settings, or it cannot be
            written.
    """

    def __init__(
        self, folder: Path, output: Path, existing: Existing, settings: Mapping[str, Any] | None, is_there: bool
    ) -> None:
        self.folder, self.output = folder, output
        self._settings_file = folder / _SETTINGS
        begun = is_begun(folder)
        self._is_incomplete = is_there and begun  # without the folder the output would pass for complete
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

    def abandon(self, keep: bool) -> None:
        """Ends the job: keeps the folder if wanted, or if an earlier run has left an incomplete output."""
        if keep or self._is_incomplete:
            self.release()
        else:
            self.remove()

    def remove(self) -> None:
        """Removes the folder and the lock, once the output is complete or nothing is worth keeping."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def release(self) -> None:
        """Releases the lock, so that other processes can resume the output."""
        self._lock.release()

    def _hold(self) -> None:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise DBLRError(f'{self.output} is being written by another process; wait for it, or end it') from error
        except NotImplementedError:
            pass  # a file system without locks

    def _begin(self, existing: Existing, settings: dict[str, Any], is_there: bool) -> None:
        begun = is_begun(self.folder) and (is_there or any(self.folder.glob('*.packets')))
        if begun and existing == 'refuse':
            raise DBLRError(
                f'{self.output} was started and is not complete; continue with --resume, or start again with '
                '--overwrite'
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
                f'{self._settings_file} is damaged, so the settings of {self.output} are unknown; '
                'start again with --overwrite'
            ) from error
        if differing:
            names = ', '.join(differing).replace('_', '-')
            raise DBLRError(
                f'{self.output} was started with other settings ({names}); use the same ones, or start again with '
                '--overwrite'
            )


def fingerprint(source: Source) -> str:
    """Returns a hash of the names, sizes and modification times of a source's files, which detects changes."""
    digest = hashlib.sha256()
    for file in getattr(source, 'files', [source.path]):
        facts = os.stat(file)
        digest.update(os.fsencode(f'{file.name} {facts.st_size} {facts.st_mtime_ns}\n'))  # names need not be UTF-8
    return digest.hexdigest()


#: Frames per segment: few enough that a kill costs little work, and enough that key frames stay rare.
PICTURES = 100

_FORMAT = 1
_RECORD = struct.Struct('<IqqqB')  # number of bytes that follow, pts, dts, duration, whether it is a key frame
_SEAL = 0xFFFFFFFF  # instead of the number of bytes: the end, followed by the number of frames and the checksum
_NO_TIME = -(1 << 63)


@dataclass(frozen=True)
class KeptPacket:
    """An encoded packet; times are in the encoder's time base."""

    data: bytes
    pts: int
    dts: int | None
    duration: int
    is_key: bool


class Segments:
    """The segments in a folder.

    Segments after a missing or damaged one are dropped, with a warning; raises DBLRError if one cannot be read.

    Args:
        folder: The folder that holds them.

    Attributes:
        size: (h, w) of their frames; None while there are none.
        high_bit_depth: Whether their frames are uint16.
        pictures: Number of frames in complete segments.
        first: The first pts of all packets; None while there are none.
        last: The last pts of all packets; None while there are none.
        end: When the last frame ends, in the same unit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size: tuple[int, int] | None = None
        self.high_bit_depth = False
        self.pictures = self._whole = 0
        self.first: int | None = None
        self.last: int | None = None
        self.end = 0
        self._file: BinaryIO | None = None
        self._crc = 0
        self._open_path = folder / 'open.packets'
        while self._take_whole():
            self._whole += 1
        self._drop_rest()

    def begin(self, size: tuple[int, int], high_bit_depth: bool) -> None:
        """Begins a segment of frames of this size (h, w)."""
        self.size, self.high_bit_depth = size, high_bit_depth
        self._file = open(self._open_path, 'wb')  # noqa: SIM115  (closed by seal or close)
        self._crc = 0
        self._put(json.dumps({'format': _FORMAT, 'size': size, 'high_bit_depth': high_bit_depth}).encode() + b'\n')

    def add(self, packet: av.Packet) -> None:
        """Adds a packet, whose pts is set, to the open segment."""
        dts = _NO_TIME if packet.dts is None else packet.dts
        data, duration = bytes(packet), packet.duration or 0
        self._put(_RECORD.pack(len(data), packet.pts, dts, duration, packet.is_keyframe) + data)
        self._count(packet.pts, duration)

    def seal(self, pictures: int) -> None:
        """Ends the segment, which has ``pictures`` frames; from now on it survives kills and power cuts."""
        self._put(_RECORD.pack(_SEAL, pictures, self._crc, 0, 0))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        os.replace(self._open_path, self._path(self._whole))
        self._whole += 1
        self.pictures += pictures

    def close(self) -> None:
        """Closes the open segment's file; nothing of an unsealed segment is kept."""
        if self._file is not None:
            with suppress(OSError):  # the disk refuses buffered data; seal has already reported it
                self._file.close()
            self._file = None

    def packets(self) -> Iterator[KeptPacket]:
        """Yields all packets in decoding order, including those of an open segment."""
        if self._file is not None:
            self._file.flush()
        paths = [self._path(number) for number in range(self._whole)]
        for path in [*paths, *([self._open_path] if self._file is not None else [])]:
            with open(path, 'rb') as file:
                file.readline()
                for (size, pts, dts, duration, is_key), data in _records(file):
                    if size != _SEAL:
                        yield KeptPacket(data, pts, None if dts == _NO_TIME else dts, duration, bool(is_key))

    def _path(self, number: int) -> Path:
        return self.folder / f'{number:06d}.packets'

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._crc = zlib.crc32(data, self._crc)

    def _count(self, pts: int, duration: int) -> None:
        self.first = pts if self.first is None else min(self.first, pts)
        self.last = pts if self.last is None else max(self.last, pts)
        self.end = max(self.end, pts + duration)

    def _take_whole(self) -> bool:
        """Returns whether the next segment exists and is undamaged, and adds its packets to the totals."""
        path = self._path(self._whole)
        try:
            with open(path, 'rb') as file:
                line = file.readline(1000)
                head, crc, times = json.loads(line), zlib.crc32(line), []
                for record, data in _records(file):
                    if record[0] == _SEAL:
                        break
                    times.append((record[1], record[3]))
                    crc = zlib.crc32(data, zlib.crc32(_RECORD.pack(*record), crc))
                else:
                    return False
        except (FileNotFoundError, ValueError):
            return False
        except OSError as error:  # it and those after it may be intact
            raise DBLRError(f'{path} cannot be read ({error.strerror}); fix its permissions or its disk') from error
        if record[2] != crc or head.get('format') != _FORMAT:
            return False
        self.size, self.high_bit_depth = tuple(head['size']), head['high_bit_depth']
        self.pictures += record[1]
        for pts, duration in times:
            self._count(pts, duration)
        return True

    def _drop_rest(self) -> None:
        """Removes the packet files that do not belong to the unbroken run of complete segments."""
        kept = {self._path(number) for number in range(self._whole)}
        rest = sorted(path for path in self.folder.glob('*.packets') if path not in kept)
        if any(path != self._open_path for path in rest):
            text = '%s: what was restored from frame %d on is damaged; it is restored again'
            _log.warning(text, self.folder, self.pictures)
        for path in rest:
            try:
                path.unlink()
            except OSError as error:
                raise DBLRError(f'{path} cannot be removed ({error.strerror}); fix the permissions') from error


def _records(file: BinaryIO) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yields a file's records from its current position to its end, or to where it was truncated."""
    while len(head := file.read(_RECORD.size)) == _RECORD.size:
        record = _RECORD.unpack(head)
        size = 0 if record[0] == _SEAL else record[0]
        data = file.read(size)
        if len(data) < size:
            return
        yield record, data
