"""The state of an unfinished output: its lock, its settings, and of a video its finished segments.

All of it is in a hidden folder beside the output, which is gone when the output is complete. A segment is encoded by
itself, so that a video that goes on from a whole segment becomes the same as one that was never stopped. Packets are
kept as the encoder gave them, with exact times, and a checksum.
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

__all__ = ['PICTURES', 'AlreadyComplete', 'Existing', 'KeptPacket', 'Segments', 'Unfinished', 'fingerprint']

_log = logging.getLogger(__name__)

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
        DBLRError: Another process is at work on it, it exists, it was started with other settings, or it cannot be
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
            raise DBLRError(
                f'{self.output} was started with other settings ({", ".join(differing)}); use the same ones, '
                'or start again with --overwrite'
            )


def fingerprint(source: Source) -> str:
    """What distinguishes a source from another or a changed one: names, sizes and times of its files."""
    digest = hashlib.sha256()
    for file in getattr(source, 'files', [source.path]):
        facts = os.stat(file)
        digest.update(f'{file.name} {facts.st_size} {facts.st_mtime_ns}\n'.encode())
    return digest.hexdigest()


#: Pictures of a segment: as much work as a kill costs at most, and few enough key frames.
PICTURES = 100

_FORMAT = 1
_RECORD = struct.Struct('<IqqqB')  # bytes that follow, pts, dts, duration, whether decoding can begin here
_SEAL = 0xFFFFFFFF  # in place of the bytes: the end, with the number of pictures and the checksum behind it
_NO_TIME = -(1 << 63)


@dataclass(frozen=True)
class KeptPacket:
    """What an encoder gave; times in its time base."""

    data: bytes
    pts: int
    dts: int | None
    duration: int
    is_key: bool


class Segments:
    """The segments in a folder.

    Those that follow a missing or damaged one are dropped, with a warning.

    Args:
        folder: Where they are.

    Attributes:
        size: (h, w) of their pictures; None while there are none.
        high_bit_depth: Whether their pictures are uint16.
        pictures: How many the whole segments hold.
        first: The first pts, and
        last: the last pts, of all packets; None while there are none.
        end: When the last picture's time is over, in the same unit.
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
        """Begins a segment of pictures of this size (h, w)."""
        self.size, self.high_bit_depth = size, high_bit_depth
        self._file = open(self._open_path, 'wb')  # noqa: SIM115  (closed by seal, or close)
        self._crc = 0
        self._put(json.dumps({'format': _FORMAT, 'size': size, 'high_bit_depth': high_bit_depth}).encode() + b'\n')

    def add(self, packet: av.Packet) -> None:
        """Keeps a packet, whose pts is known, in the segment that was begun."""
        dts = _NO_TIME if packet.dts is None else packet.dts
        data, duration = bytes(packet), packet.duration or 0
        self._put(_RECORD.pack(len(data), packet.pts, dts, duration, packet.is_keyframe) + data)
        self._record(KeptPacket(data, packet.pts, packet.dts, duration, packet.is_keyframe))

    def seal(self, pictures: int) -> None:
        """Ends the segment, of so many pictures: from now on it outlives kills and power cuts."""
        self._put(_RECORD.pack(_SEAL, pictures, self._crc, 0, 0))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        os.replace(self._open_path, self._path(self._whole))
        self._whole += 1
        self.pictures += pictures

    def close(self) -> None:
        """Closes the file of a segment that was begun; of one that is not sealed nothing is kept."""
        if self._file is not None:
            with suppress(OSError):  # the disk refuses what is still to be written; sealing has told it
                self._file.close()
            self._file = None

    def packets(self) -> Iterator[KeptPacket]:
        """Yields all packets, in the order of decoding, those of a segment that was begun too."""
        if self._file is not None:
            self._file.flush()
        paths = [self._path(number) for number in range(self._whole)]
        for path in [*paths, *([self._open_path] if self._file is not None else [])]:
            with open(path, 'rb') as file:
                file.readline()
                for record, data in _records(file):
                    if record[0] != _SEAL:
                        yield _packet(record, data)

    def _path(self, number: int) -> Path:
        return self.folder / f'{number:06d}.packets'

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._crc = zlib.crc32(data, self._crc)

    def _record(self, packet: KeptPacket) -> None:
        self.first = packet.pts if self.first is None else min(self.first, packet.pts)
        self.last = packet.pts if self.last is None else max(self.last, packet.pts)
        self.end = max(self.end, packet.pts + packet.duration)

    def _take_whole(self) -> bool:
        """Looks whether the next segment is there and undamaged, and takes note of its content."""
        try:
            with open(self._path(self._whole), 'rb') as file:
                line = file.readline(1000)
                head, crc, packets = json.loads(line), zlib.crc32(line), []
                for record, data in _records(file):
                    if record[0] == _SEAL:
                        break
                    packets.append(_packet(record, b''))
                    crc = zlib.crc32(data, zlib.crc32(_RECORD.pack(*record), crc))
                else:
                    return False
        except (OSError, ValueError):
            return False
        if record[2] != crc or head.get('format') != _FORMAT:
            return False
        self.size, self.high_bit_depth = tuple(head['size']), head['high_bit_depth']
        self.pictures += record[1]
        for packet in packets:
            self._record(packet)
        return True

    def _drop_rest(self) -> None:
        """Removes what no whole segment leads to."""
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
    """Yields the records of a file from where it stands to its end, or to where it was cut off."""
    while len(head := file.read(_RECORD.size)) == _RECORD.size:
        record = _RECORD.unpack(head)
        size = 0 if record[0] == _SEAL else record[0]
        data = file.read(size)
        if len(data) < size:
            return
        yield record, data


def _packet(record: tuple[int, ...], data: bytes) -> KeptPacket:
    _, pts, dts, duration, is_key = record
    return KeptPacket(data, pts, None if dts == _NO_TIME else dts, duration, bool(is_key))
