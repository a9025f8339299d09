"""Reads and writes folders of images; names, order, format and bit depth are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from PIL import Image

from dblr_plugin.data.images import imdecode, inspected_size, natural, opened
from dblr_plugin.errors import DBLRError, raise_faults
from dblr_plugin.files import atomic_write, check_writable, partial_of
from dblr_plugin.video.frames import Extent, Frame, Source, scaled_size, shrink
from dblr_plugin.video.image_metadata import DESCRIBED, EXIF, PROFILE, ImageMetadata, with_metadata
from dblr_plugin.video.unfinished import AlreadyComplete, Existing, Unfinished

__all__ = ['FolderSink', 'FolderSource', 'warn_left_out']

_log = logging.getLogger(__name__)

_DEEP_FORMATS = ('.png', '.tif', '.tiff')
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_WRITING = {'.jpg': _JPEG, '.jpeg': _JPEG, '.webp': (cv2.IMWRITE_WEBP_QUALITY, 101)}  # above 100 is lossless


class FolderSource:
    """Image files in natural order of their names, as frames of one size.

    Grey becomes RGB with three equal channels, alpha is dropped, and photographs stored sideways are turned upright.

    Args:
        path: The input as the user gave it.
        files: The images.
        start: Index of the first image.
        end: Index after the last image.
        scale_down: The factor by which images are shrunk.

    Attributes:
        described: For each kind of metadata (colour profile, Exif or other), the files that have it.

    Raises:
        DBLRError: No file is left, or one is damaged, truncated, or of another size than the first.
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
        self.described = _look_at(self.files)

    def skip(self, pictures: int) -> None:
        """See :class:`Source`."""
        self._skipped = pictures

    def __iter__(self) -> Iterator[Frame]:
        faults: list[str] = []  # after the first fault, files are only checked
        for file in self.files[self._skipped :]:
            try:
                pixels = _read(file)
                if pixels.shape[:2] != self.full_size or (pixels.dtype == np.uint16) != self.high_bit_depth:
                    raise DBLRError(f'{file} has another size or depth than {self.files[0].name}; convert or remove it')
            except DBLRError as error:
                faults.append(str(error))
            if not faults:
                yield Frame(shrink(pixels, self.size), file.name, None)
        raise_faults(faults, 'images')

    def extent(self) -> Extent:
        """See :class:`Source`."""
        return Extent(self.count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Holds nothing open."""


class FolderSink:
    """Writes frames as image files, each completely or not at all; other files in the folder are left alone.

    JPEG files get quality 98 without chroma subsampling, WebP files are lossless. A video's frames become PNG files.

    Args:
        folder: The output folder; created if missing.
        source: Where the frames come from; its files are not overwritten.
        suffix: Appended to each name, before the extension.
        only: The output file's name, for a single image.
        existing: What to do about existing files of these names.
        settings: What must match for an output to be resumed, serialisable as JSON.

    Attributes:
        done: Number of frames that an earlier run left, without a gap from the first.

    Raises:
        DBLRError: A file would overwrite one of the source's, exists and may not be replaced, or cannot be written.
        AlreadyComplete: The output to resume is already complete.
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
        self._sources: dict[str, Path] = {}  # files with metadata, by frame name
        if isinstance(source, FolderSource):
            self._refuse_sources(source.files)
            self._keep_metadata(source.described)
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
            if picture.name in self._sources:
                with Image.open(self._sources[picture.name]) as image:
                    metadata = ImageMetadata.of(image)
                data = with_metadata(data, metadata, picture.pixels.shape[:2], path.suffix.lower())
            partial.write_bytes(data)
        self.written += 1

    def finish(self) -> None:
        """See :class:`Sink`; every file is already complete."""
        if self._unfinished is not None:
            self._unfinished.remove()

    def extent(self) -> Extent:
        """See :class:`Sink`."""
        return Extent(self.written)

    def abandon(self) -> bool:
        """See :class:`Sink`."""
        if self._unfinished is not None:
            self._unfinished.abandon(keep=self.written > 0)
        return self.written > 0

    def _older(self, names: Sequence[str] | None) -> Path | None:
        """Returns an existing output; for a video, whose frames are not yet counted, only the first is looked for."""
        targets = (self._target(name) for name in (['00000000'] if names is None else names))
        return next((path for path in targets if path.exists()), None)

    def _refuse_some(self, names: Sequence[str]) -> None:
        """Refuses to resume from some of the files, as nothing says how they were made."""
        there = [self._target(name) for name in names if self._target(name).exists()]
        if 0 < len(there) < len(names):
            raise DBLRError(f'{there[0]} exists, and others are missing; give another output, or --overwrite')

    def _in_a_row(self, names: Sequence[str] | None) -> int:
        """Returns how many frames exist without a gap from the first, each complete."""
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
        """Refuses outputs that would overwrite inputs, before the first frame is restored."""
        taken = {file.resolve() for file in files}
        for file in files:
            target = self._target(file.name)
            if target.resolve() in taken:
                raise DBLRError(f'{target} is an input; give another output folder, or a suffix')

    def _keep_metadata(self, described: Mapping[str, Sequence[Path]]) -> None:
        """Records the files whose colour profile and Exif go into the output, and warns about what is left out."""
        left_out: dict[str, list[Path]] = {}
        for kind, files in described.items():
            for file in files:
                if kind in (PROFILE, EXIF) and self._target(file.name).suffix.lower() in DESCRIBED:
                    self._sources[file.name] = file
                else:
                    left_out.setdefault(kind, []).append(file)
        warn_left_out(left_out, self.folder)


def _refuse_unequal(files: Sequence[Path]) -> None:
    """Refuses images of unequal size before any is restored, rather than after a thousand."""
    first, faults = None, []
    for file in files:
        try:
            size = sorted(inspected_size(file))  # rotated photographs have their sides swapped
        except DBLRError as error:
            faults.append(str(error))
            continue
        first = first or (file.name, size)
        if size != first[1]:
            faults.append(f'{file} has another size than {first[0]}; convert or remove it')
    raise_faults(faults, 'images')


def _read(file: Path) -> np.ndarray:
    """Returns RGB (h, w, 3), uint8 or uint16; raises DBLRError for a file that is not an image."""
    with opened(file) as stream:
        data = stream.read()
    image = imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise DBLRError(f'{file} is damaged, cut off or not of 8 or 16 bits; replace it with an intact copy')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _look_at(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Returns the files by kind of metadata; warns about further images and transparency, which are never restored."""
    kinds: dict[str, list[Path]] = {}
    several, transparent = [], []
    for file in files:
        with Image.open(file) as image:
            for kind in ImageMetadata.of(image).kinds:
                kinds.setdefault(kind, []).append(file)
            if (count := getattr(image, 'n_frames', 1)) > 1:
                several.append(f'{file} ({count})')
            if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
                transparent.append(file)
    if several:
        more = f' and {len(several) - 5} more' if len(several) > 5 else ''
        text = 'only the first image is restored of files that hold several: %s%s; save each image as a file of its own'
        _log.warning(text, ', '.join(several[:5]), more)
    if transparent:
        _log.warning('%s has transparency, which is left out of the output%s', transparent[0], _count(transparent))
    return kinds


def warn_left_out(kinds: Mapping[str, Sequence[Path]], output: Path) -> None:
    """Warns about metadata that the files have and the output does not get."""
    if kinds:
        listed = ', '.join(f'{kind}{_count(files)}' for kind, files in kinds.items())
        first = next(iter(kinds.values()))[0]
        _log.warning('%s: left out of %s: %s', first, output, listed)


def _count(files: Sequence[Path]) -> str:
    return f' ({len(files)} files)' if len(files) > 1 else ''


def _encoded(pixels: np.ndarray, extension: str) -> bytes:
    """Returns the content of an image file."""
    if pixels.dtype == np.uint16 and extension not in _DEEP_FORMATS:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    _, data = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _WRITING.get(extension, ()))
    return data.tobytes()
