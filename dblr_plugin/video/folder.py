"""Reads and writes folders of images; names, order, format and bit depth are kept."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from PIL import Image

from dblr_plugin.data.images import imdecode, inspected_size, natural, opened
from dblr_plugin.errors import DBLRError, counted, raise_faults
from dblr_plugin.files import atomic_write, check_writable, make_folder, partial_of, write_fault
from dblr_plugin.video.frames import Extent, Frame, Source, scaled_size, shrink
from dblr_plugin.video.image_metadata import (
    COLOUR_TAGS,
    DEEP_FORMATS,
    DESCRIBED,
    EXIF,
    PROFILE,
    ImageMetadata,
    colour_chunk,
    encoded,
)
from dblr_plugin.video.settings import described_part
from dblr_plugin.video.unfinished import AlreadyComplete, Existing, Unfinished, is_begun

__all__ = ['FolderSink', 'FolderSource', 'warn_left_out']

_log = logging.getLogger(__name__)

_ORIENTATION = 0x0112  # the Exif tag; values of more than 4 swap the sides
_RARE = 0.3  # share of a sequence's steps that are longer than the others, where these are gaps


class FolderSource:
    """Image files in natural order of their names, as frames of one size.

    Grey becomes RGB with three equal channels, alpha is dropped, and photographs stored sideways are turned upright.

    Args:
        path: The input as the user gave it.
        files: The images.
        start: Index of the first image; None for 0.
        end: Index after the last image; None for all.
        scale_down: The factor by which images are shrunk.

    Attributes:
        described: For each kind of metadata (colour profile, Exif or other), the files that have it.

    Raises:
        DBLRError: No file is left, or one is damaged, truncated, or of another size than the first.
    """

    damaged = 0  # as such images are refused

    def __init__(
        self, path: Path, files: Sequence[Path], start: int | None = None, end: int | None = None, scale_down: float = 1
    ) -> None:
        self.path = path
        ordered = sorted(files, key=lambda file: natural(file.name))
        self.files = ordered[start:end]
        if not self.files:
            raise DBLRError(
                f'{path} has {counted(len(ordered), "image")}, and none {described_part(start, end)} (the first is 0); '
                'change start or end'
            )
        _refuse_unequal(self.files)
        first = _read(self.files[0])
        self.full_size = first.shape[:2]
        self.size = scaled_size(self.full_size, scale_down)
        self.high_bit_depth = first.dtype == np.uint16
        self.count = self.likely_count = len(self.files)
        self._skipped = 0
        self.described = _look_at(self.files)
        _warn_numbering(path, [file.name for file in self.files])

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

    Until the output is complete, a hidden folder in it lists the frames written, so that a resumed run does not take
    those that it is replacing for its own. Without that list, ``resume`` restores what is missing, and leaves the
    frames that exist as they are.

    Args:
        folder: The output folder; created if missing.
        source: Where the frames come from; its files are not overwritten.
        suffix: Appended to each name, before the extension.
        only: The output file's name, for a single image.
        existing: What to do about existing files of these names.
        settings: What must match for an output to be resumed, serialisable as JSON.

    Attributes:
        done: Number of frames that exist already, without a gap from the first.

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
        files: list[Path] = source.files if isinstance(source, FolderSource) else []
        # a video's frames are not counted yet
        self._names = [file.name for file in files] or (None if only is None else _numbered(1))
        self._sources = {file.name: file for file in files}
        info = getattr(source, 'info', None)  # videos have one
        self._colour = b'' if info is None else colour_chunk(info.colour.primaries, info.colour.transfer)
        if info is not None and info.aspect != 1:
            _log.warning('%s: the pixel aspect ratio, %s, is left out; write a video to keep it', folder, info.aspect)
        if isinstance(source, FolderSource):
            self._refuse_sources(source.files)
            self._warn_of_losses(source)
        self._is_new = not folder.exists()
        make_folder(folder)
        hidden = partial_of(folder / 'pictures')
        begun = only is None and is_begun(hidden)
        self._older = self._existing()
        if self._older and not begun:
            self._refuse_older(existing, source.count)
        self._unfinished: Unfinished | None = None
        self._kept: set[str] = set()
        self.done = self.written = 0
        if only is not None:
            check_writable(folder / only)
            return
        self._unfinished = Unfinished(hidden, folder, existing, settings, bool(self._older) and begun)
        self._list = hidden / 'written'
        try:
            if existing == 'resume':
                self._go_on(begun)
        except BaseException:
            self._unfinished.release()
            raise

    def write(self, picture: Frame) -> None:
        """See :class:`Sink`."""
        if picture.name not in self._kept:
            self._write(picture)
        self.written += 1

    def finish(self) -> None:
        """See :class:`Sink`; every file is already complete."""
        if self._unfinished is not None:
            self._unfinished.remove()
        rest = [] if self._names is not None else [name for name in self._older if int(name) >= self.written]
        if rest:
            text = '%s also has %s of a longer output, such as %s; remove what you do not need'
            _log.warning(text, self.folder, counted(len(rest), 'frame'), self._target(rest[0]).name)

    def extent(self) -> Extent:
        """See :class:`Sink`."""
        return Extent(self.written)

    def abandon(self) -> bool:
        """See :class:`Sink`."""
        if self._unfinished is not None:
            self._unfinished.abandon(keep=self.written > 0)
        if self._is_new:
            with suppress(OSError):  # it holds something
                self.folder.rmdir()
        return self.written > 0

    def _write(self, picture: Frame) -> None:
        path = self._target(picture.name)
        with atomic_write(path) as partial:
            partial.write_bytes(encoded(picture.pixels, path, self._metadata(picture.name)))
        if self.only is None:
            self._add_to_list([picture.name])

    def _metadata(self, name: str) -> ImageMetadata:
        if name not in self._sources:
            return ImageMetadata(chunks=self._colour)
        with Image.open(self._sources[name]) as image:
            return ImageMetadata.of(image)

    def _existing(self) -> list[str]:
        """Returns the names of the frames whose files exist; for a video, of as many as there are."""
        if self._names is not None:
            return [name for name in self._names if self._target(name).exists()]
        form = re.compile(rf'(\d{{8}}){re.escape(self.suffix)}\.png')
        return sorted(found[1] for path in self.folder.iterdir() if (found := form.fullmatch(path.name)))

    def _refuse_older(self, existing: Existing, count: int | None) -> None:
        """Refuses to replace frames, and to resume if none is missing; some videos do not tell how many there are."""
        if existing == 'refuse':
            raise DBLRError(f'{self._target(self._older[0])} exists; give another output, or --overwrite')
        names = _numbered(max(count or 0, int(self._older[-1]) + 1)) if self._names is None else self._names
        if existing == 'resume' and self._older == names:
            raise AlreadyComplete(f'{self.folder / (self.only or "")} is complete; --overwrite restores it again')

    def _go_on(self, begun: bool) -> None:
        """Finds the frames to keep: those that an interrupted run has listed, or else all that exist."""
        listed = self._older
        if begun:
            data = self._list.read_bytes() if self._list.exists() else b''
            listed = [os.fsdecode(name) for name in data.split(b'\0')[:-1]]
        self._kept = {name for name in listed if self._is_whole(name)}
        names = _numbered(len(self._kept)) if self._names is None else self._names
        self.done = self.written = next((i for i, name in enumerate(names) if name not in self._kept), len(names))
        if self._older and not begun:
            self._add_to_list(self._kept)
            text = '%s is not complete; what is missing is restored, and the frames that exist stay as they are'
            _log.warning(text, self.folder)

    def _is_whole(self, name: str) -> bool:
        try:
            inspected_size(self._target(name))
        except DBLRError:
            return False
        return True

    def _add_to_list(self, names: Iterable[str]) -> None:
        """Adds to the names of the frames that a resumed run keeps."""
        try:
            with open(self._list, 'ab') as file:
                file.write(b''.join(os.fsencode(name) + b'\0' for name in names))
        except OSError as error:
            raise write_fault(self.folder, error) from error

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
                raise DBLRError(f'{target} is an input; give another folder or suffix, or name the inputs with a glob')

    def _warn_of_losses(self, source: FolderSource) -> None:
        """Warns about metadata and bits that the output's format cannot hold."""
        left_out: dict[str, list[Path]] = {}
        for kind, files in source.described.items():
            holding = {PROFILE: DESCRIBED, EXIF: DESCRIBED, COLOUR_TAGS: ('.png',)}.get(kind, ())
            lost = [file for file in files if self._target(file.name).suffix.lower() not in holding]
            left_out |= {kind: lost} if lost else {}
        warn_left_out(left_out, self.folder)
        target = self._target(source.files[0].name)
        if source.high_bit_depth and target.suffix.lower() not in DEEP_FORMATS:
            _log.warning('%s holds 8 bits only, and its source has 16; give .png or .tif to keep them', target)


def _numbered(count: int) -> list[str]:
    """Returns the names of a video's first frames."""
    return [f'{number:08d}' for number in range(count)]


def _refuse_unequal(files: Sequence[Path]) -> None:
    """Refuses images of unequal size before any is restored, rather than after a thousand."""
    first, faults = None, []
    for file in files:
        try:
            size = inspected_size(file)
        except DBLRError as error:
            faults.append(str(error))
            continue
        size = size[::-1] if _is_turned(file) else size
        first = first or (file.name, size)
        if size != first[1]:
            faults.append(f'{file} has another size than {first[0]}; convert or remove it, or restore it by itself')
    raise_faults(faults, 'images')


def _is_turned(file: Path) -> bool:
    """Returns whether a photograph is to be shown with its sides swapped."""
    with suppress(Exception), Image.open(file) as image:  # Pillow's parser raises anything on damaged Exif
        if image.format == 'TIFF' or (image.format == 'PNG' and 'exif' not in image.info):
            return False  # Pillow swaps the sides of TIFF itself, and decodes all of a PNG to look for Exif
        return image.getexif().get(_ORIENTATION, 1) > 4
    return False


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
        _log.warning('%s has an alpha channel, which is left out of the output%s', transparent[0], _count(transparent))
    return kinds


def _warn_numbering(path: Path, names: Sequence[str]) -> None:
    """Warns about several numbered sequences among the files, and about frames that are missing from one."""
    found: dict[tuple[str | int, ...], list[tuple[int, str]]] = {}
    for name in names:
        *before, number, after = ['', *natural(name)[0]]
        if isinstance(number, int):
            found.setdefault((*before, after), []).append((number, name))
    sequences = [sequence for sequence in found.values() if len(sequence) > 1]
    if len(sequences) > 1:
        text = '%s: %d sequences, such as those from %s and %s on, are restored as one; give a glob for one alone'
        _log.warning(text, path, len(sequences), sequences[0][0][1], sequences[1][0][1])
    elif sequences:
        steps = [later - earlier for (earlier, _), (later, _) in pairwise(sequences[0])]
        gaps = [name for (_, name), step in zip(sequences[0], steps, strict=False) if step > min(steps)]
        if gaps and len(gaps) <= _RARE * len(steps):  # others, such as the photographs that were kept, have no rhythm
            more = f' and {len(gaps) - 1} more' if len(gaps) > 1 else ''
            text = '%s: frames are missing behind %s%s; their neighbours are taken as consecutive'
            _log.warning(text, path, gaps[0], more)


def warn_left_out(kinds: Mapping[str, Sequence[Path]], output: Path) -> None:
    """Warns about metadata that the files have and the output does not get."""
    if kinds:
        listed = ', '.join(f'{kind}{_count(files)}' for kind, files in kinds.items())
        first = next(iter(kinds.values()))[0]
        _log.warning('%s: left out of %s: %s', first, output, listed)


def _count(files: Sequence[Path]) -> str:
    return f' ({len(files)} files)' if len(files) > 1 else ''
