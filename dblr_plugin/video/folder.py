"""Reads and writes folders of images; names, order, format and bit depth are kept."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from PIL import Image

from dblr_plugin.data.images import inspected_size, natural, opened
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import atomic_write, check_writable, partial_of
from dblr_plugin.video.frames import Extent, Frame, Source, scaled_size, shrink
from dblr_plugin.video.unfinished import AlreadyComplete, Existing, Unfinished

__all__ = ['FolderSink', 'FolderSource']

_log = logging.getLogger(__name__)

_PROFILED = ('.png', '.jpg', '.jpeg')  # get the source's ICC profile
_DEEP_FORMATS = ('.png', '.tif', '.tiff')
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_WRITING = {'.jpg': _JPEG, '.jpeg': _JPEG, '.webp': (cv2.IMWRITE_WEBP_QUALITY, 101)}  # above 100 is lossless


class FolderSource:
    """Image files in natural order of their names, as pictures of one size.

    Grey becomes RGB of three equal channels, alpha is dropped, and photographs that are stored lying are turned
    upright.

    Args:
        path: What the user named.
        files: The images.
        start: The first to take; 0 is the first of all.
        end: The first that is not taken any more.
        scale_down: The factor by which pictures shrink.

    Raises:
        DBLRError: No file is left, one is damaged or cut off, or has another size than the first.
    """

    def __init__(
        self, path: Path, files: Sequence[Path], start: int = 0, end: int | None = None, scale_down: float = 1
    ) -> None:
        self.path = path
        ordered = sorted(files, key=lambda file: natural(file.name))
        self.files = ordered[start:end]
        if not self.files:
            raise DBLRError(f'{path} has {len(ordered)} images, none of them from {start} to {end}; fix start and end')
        _refuse_unequal(self.files)
        first = _read(self.files[0])
        self.full_size = first.shape[:2]
        self.size = scaled_size(self.full_size, scale_down)
        self.high_bit_depth = first.dtype == np.uint16
        self.count = len(self.files)
        self._skipped = 0
        _tell_alpha(self.files[0])
        _tell_further_pictures(self.files)

    def skip(self, pictures: int) -> None:
        """See :class:`Source`."""
        self._skipped = pictures

    def __iter__(self) -> Iterator[Frame]:
        for file in self.files[self._skipped :]:
            pixels = _read(file)
            if pixels.shape[:2] != self.full_size or (pixels.dtype == np.uint16) != self.high_bit_depth:
                raise DBLRError(f'{file} has another size or depth than {self.files[0].name}; convert or remove it')
            yield Frame(shrink(pixels, self.size), file.name, None)

    def extent(self) -> Extent:
        """See :class:`Source`."""
        return Extent(self.count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Holds nothing open."""


class FolderSink:
    """Writes pictures as image files, each of them whole or not at all; other files in the folder are left alone.

    JPEG files get quality 98 without chroma subsampling, WebP files are lossless. A video's pictures become PNG files.

    Args:
        folder: Made where it is missing.
        source: Where the pictures come from: its files are not written over.
        suffix: Put behind each name, before the extension.
        only: The output file's name, for a single picture.
        existing: What to do about older files of these names.
        settings: What must be the same for going on with an output, as JSON can hold it.

    Attributes:
        done: How many pictures an earlier run has left, one behind the other from the first.

    Raises:
        DBLRError: A file would replace one of the source's, exists and may not be replaced, or cannot be written.
        AlreadyComplete: All are there, and are to be resumed.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        suffix: str = '',
        only: str | None = None,
        existing: Existing = 'replace',
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.suffix, self.only = folder, suffix, only
        names = [file.name for file in source.files] if isinstance(source, FolderSource) else None
        self._profiles: dict[str, bytes] = {}  # ICC, by name of the picture
        if isinstance(source, FolderSource):
            self._refuse_sources(source.files)
            self._profiles = _profiles(source.files)
            self._tell_left_out(source.files)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DBLRError(f'{folder} cannot be made ({error.strerror}); give another output') from error
        older = self._older(names)
        self._unfinished: Unfinished | None = None
        if only is None:
            hidden = partial_of(folder / 'pictures')
            if existing == 'resume' and not hidden.exists():
                self._refuse_some(names or [])
            self._unfinished = Unfinished(hidden, older or folder, existing, settings, older is not None)
        elif older is not None and existing != 'replace':
            raise (AlreadyComplete if existing == 'resume' else DBLRError)(
                f'{older} exists; give another output, or --overwrite'
            )
        else:
            check_writable(folder / only)
        self.done = self.written = self._in_a_row(names) if existing == 'resume' else 0

    def write(self, picture: Frame) -> None:
        """See :class:`Sink`."""
        path = self._target(picture.name)
        with atomic_write(path) as partial:
            data = _encoded(picture.pixels, path.suffix.lower())
            partial.write_bytes(_with_profile(data, self._profiles.get(picture.name), path.suffix.lower()))
        self.written += 1

    def finish(self) -> None:
        """See :class:`Sink`; every file is complete already."""
        if self._unfinished is not None:
            self._unfinished.remove()

    def extent(self) -> Extent:
        """See :class:`Sink`."""
        return Extent(self.written)

    def abandon(self) -> bool:
        """See :class:`Sink`."""
        if self._unfinished is not None and self.written:
            self._unfinished.release()
        elif self._unfinished is not None:
            self._unfinished.remove()
        return self.written > 0

    def _older(self, names: Sequence[str] | None) -> Path | None:
        """Returns an output that is there; of a video, whose pictures are still to be counted, the first."""
        targets = (self._target(name) for name in (['00000000'] if names is None else names))
        return next((path for path in targets if path.exists()), None)

    def _refuse_some(self, names: Sequence[str]) -> None:
        """Refuses to go on with pictures that nobody knows how they were made."""
        there = [self._target(name) for name in names if self._target(name).exists()]
        if 0 < len(there) < len(names):
            raise DBLRError(f'{there[0]} exists, and others are missing; give another output, or --overwrite')

    def _in_a_row(self, names: Sequence[str] | None) -> int:
        """Returns how many pictures are there from the first on, each whole."""
        done = 0
        for name in (f'{number:08d}' for number in count()) if names is None else names:
            try:
                inspected_size(self._target(name))
            except DBLRError:
                break
            done += 1
        return done

    def _target(self, name: str) -> Path:
        if self.only is not None:
            return self.folder / self.only
        stem, dot, extension = name.rpartition('.')
        return self.folder / (f'{stem}{self.suffix}.{extension}' if dot else f'{name}{self.suffix}.png')

    def _refuse_sources(self, files: Sequence[Path]) -> None:
        """Looks at all names before the first picture is restored."""
        taken = {file.resolve() for file in files}
        for file in files:
            target = self._target(file.name)
            if target.resolve() in taken:
                raise DBLRError(f'{target} is an input; give another output folder, or a suffix')

    def _tell_left_out(self, files: Sequence[Path]) -> None:
        """Tells of colour profiles that an output format gets none of."""
        lost = [f for f in files if f.name in self._profiles and self._target(f.name).suffix.lower() not in _PROFILED]
        if lost:
            _log.warning(
                '%s: its ICC profile is left out; write .png or .jpg to keep it (%d files)', lost[0], len(lost)
            )


def _refuse_unequal(files: Sequence[Path]) -> None:
    """Compares the sizes before anything is restored, so that the last of a thousand is not found out last."""
    sizes = []
    for file in files:
        sizes.append(sorted(inspected_size(file)))  # a turned photograph has its sides exchanged
        if sizes[-1] != sizes[0]:
            raise DBLRError(f'{file} has another size than {files[0].name}; convert or remove it')


def _read(file: Path) -> np.ndarray:
    """Returns RGB (h, w, 3), uint8 or uint16; raises DBLRError for a file that is no image."""
    with opened(file) as stream:
        data = stream.read()
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # a header that asks for more pixels than OpenCV allows
        image = None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise DBLRError(f'{file} is damaged, cut off or not of 8 or 16 bits; replace it with an intact copy')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _tell_further_pictures(files: Sequence[Path]) -> None:
    """Tells which files hold several pictures: stacks and animations."""
    several = []
    for file in files:
        with Image.open(file) as image:
            if (count := getattr(image, 'n_frames', 1)) > 1:
                several.append(f'{file} ({count})')
    if several:
        more = f' and {len(several) - 5} more' if len(several) > 5 else ''
        text = 'only the first picture is restored of files that hold several: %s%s; save each picture as a file'
        _log.warning(text, ', '.join(several[:5]), more)


def _tell_alpha(file: Path) -> None:
    with Image.open(file) as image:
        if 'A' in image.getbands() or 'transparency' in image.info:
            _log.warning('%s has transparency, which is left out of the output', file)


def _profiles(files: Sequence[Path]) -> dict[str, bytes]:
    """Returns the RGB profiles of images by name; equal ones are kept once."""
    found: dict[str, bytes] = {}
    kept: dict[bytes, bytes] = {}
    for file in files:
        with Image.open(file) as image:
            profile = image.info.get('icc_profile') or b''
        if profile[16:20] == b'RGB ':
            found[file.name] = kept.setdefault(profile, profile)
    return found


def _with_profile(data: bytes, profile: bytes | None, extension: str) -> bytes:
    """Returns an image file's content with its colour profile, in front of the pixels."""
    if profile is None or extension not in _PROFILED:
        return data
    if extension == '.png':  # behind the signature and the header
        content = b'iCCP' + b'ICC profile\0\0' + zlib.compress(profile)
        chunk = struct.pack('>I', len(content) - 4) + content + struct.pack('>I', zlib.crc32(content))
        return data[:33] + chunk + data[33:]
    pieces = [profile[at : at + 65519] for at in range(0, len(profile), 65519)]
    segments = b''.join(
        b'\xff\xe2' + struct.pack('>H', len(piece) + 16) + b'ICC_PROFILE\0' + bytes((number, len(pieces))) + piece
        for number, piece in enumerate(pieces, 1)
    )
    behind = 4 + int.from_bytes(data[4:6], 'big') if data[2:4] == b'\xff\xe0' else 2
    return data[:behind] + segments + data[behind:]


def _encoded(pixels: np.ndarray, extension: str) -> bytes:
    """Returns an image file's content."""
    if pixels.dtype == np.uint16 and extension not in _DEEP_FORMATS:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    _, data = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _WRITING.get(extension, ()))
    return data.tobytes()
