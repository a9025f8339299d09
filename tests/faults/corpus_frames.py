"""Damaged frames and wrong layouts of clips, for every command that reads clips."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from cases import Case, Desk
from mutations import ANY_FILE, ENDS_OF_IMAGES, INSIDE_OF_PNG, UNUSUAL_IMAGES, Damage, damage

__all__ = ['frames', 'unusual_frames']

NAME = '00000003'


def train(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Trains on the clips."""
    return desk.train(lq, gt)


def train_with_worker(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Trains on the clips, which a worker process reads."""
    return desk.train(lq, gt, {'datasets.train.num_worker_per_gpu': 1})


def train_luma(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Trains on the Y channel of the clips."""
    return desk.train(lq, gt, {'datasets.train.y_only': True})


def validate(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Trains on intact clips and validates on these."""
    return desk.train(changes={'datasets.val.dataroot_lq': str(lq), 'datasets.val.dataroot_gt': str(gt)})


def test(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Restores and scores the clips."""
    return desk.test(lq, gt)


def test_without_truth(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Restores the clips without ground truth."""
    return desk.test(lq, changes={'datasets.test.dataroot_gt': None})


def evaluate(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Scores the clips as results."""
    return ['evaluate', lq, gt, '--json', 'figures.json']


def evaluate_clip(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Scores one clip."""
    return ['evaluate', lq / 'b', gt / 'b', '--protocol', 'all', '--json', 'figures.json']


def lmdb(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Writes the blurry clips into a database."""
    return ['prepare', 'lmdb', lq, 'made.lmdb']


def tiles(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Writes the blurry clips into a database of tiles."""
    return ['prepare', 'lmdb', lq, 'made.lmdb', '--tiles']


def video(desk: Desk, lq: Path, gt: Path) -> list[object]:
    """Makes blurry and sharp clips from a folder of frames."""
    return ['prepare', 'video', lq / 'b', 'made', '--average', '3']


Reader = Callable[[Desk, Path, Path], list[object]]
_READERS: tuple[Reader, ...] = (train, validate, test, evaluate, lmdb, tiles, video)
_BOTH_SIDES: tuple[Reader, ...] = (train, validate, test, evaluate, evaluate_clip)
_DECODERS: tuple[Reader, ...] = (
    train, train_with_worker, train_luma, validate, test, test_without_truth, evaluate, evaluate_clip, tiles, video,
)  # fmt: skip


def _damaged(side: str, kind: Damage, reader: Reader, desk: Desk) -> list[object]:
    """Damages a frame that every command reads."""
    damage(desk.frame(side, 'b'), kind)
    return reader(desk, desk.clips / 'lq', desk.clips / 'gt')


def _changed(change: Callable[[Desk], None], reader: Reader, desk: Desk) -> list[object]:
    change(desk)
    return reader(desk, desk.clips / 'lq', desk.clips / 'gt')


def frames() -> Iterator[Case]:
    """Yields damaged frames, found at the start or when they are decoded, then wrong layouts."""
    readers = itertools.cycle(_READERS)
    for name, kind in ENDS_OF_IMAGES.items():
        for number, reader in enumerate(itertools.islice(readers, 3)):
            spoil = partial(_damaged, 'lq', kind, reader)
            name_of_case = f'frame-{name}-{reader.__name__}'
            yield Case(name_of_case, spoil, (NAME,), resumable=reader is video, again=number > 0)
    for number, (name, kind) in enumerate(ANY_FILE.items()):
        reader = _BOTH_SIDES[number % len(_BOTH_SIDES)]
        spoil = partial(_damaged, 'gt', kind, reader)
        yield Case(f'truth-{name}-{reader.__name__}', spoil, (f'gt/b/{NAME}',), again=number >= len(_BOTH_SIDES))
    readers = itertools.cycle(_DECODERS)
    for name, kind in INSIDE_OF_PNG.items():
        for number, reader in enumerate(itertools.islice(readers, 6)):
            spoil = partial(_damaged, 'lq', kind, reader)
            is_late = reader is validate
            yield Case(f'pixels-{name}-{reader.__name__}', spoil, (NAME,), trained=is_late, again=number > 1)
    for row, (change, culprit, *readers) in enumerate(_LAYOUTS):
        for number, reader in enumerate(readers):
            spoil, again = partial(_changed, change, reader), number != row % len(readers)
            yield Case(f'clips-{change.__name__}-{reader.__name__}', spoil, (culprit,), again=again)


def unusual_frames() -> Iterator[Case]:
    """Yields rare kinds of frames, which are read."""
    readers = itertools.cycle((train, test, evaluate, lmdb, tiles, video))
    for name, kind in UNUSUAL_IMAGES.items():
        for number, reader in enumerate(itertools.islice(readers, 2)):
            spoil = partial(_damaged, 'lq', kind, reader)
            yield Case(f'frame-{name}-{reader.__name__}', spoil, (), again=number > 0)


def frame_missing(desk: Desk) -> None:
    """A blurry frame without a sharp one."""
    desk.frame('gt').unlink()


def frame_extra(desk: Desk) -> None:
    """A sharp frame without a blurry one."""
    shutil.copy(desk.frame('gt'), desk.clips / 'gt/b/00000099.png')


def frame_is_folder(desk: Desk) -> None:
    """A folder with the name of a frame."""
    desk.frame().unlink()
    desk.frame().mkdir()


def frame_is_dangling(desk: Desk) -> None:
    """A link to a frame that does not exist."""
    desk.frame().unlink()
    desk.frame().symlink_to('/nowhere/00000003.png')


def frame_links_to_itself(desk: Desk) -> None:
    """A link to itself."""
    desk.frame().unlink()
    desk.frame().symlink_to(desk.frame())


def frame_twice(desk: Desk) -> None:
    """The same frame in two formats."""
    shutil.copy(desk.frame(), desk.frame().with_suffix('.jpg'))


def frame_larger(desk: Desk) -> None:
    """A frame whose size differs from its clip."""
    cv2.imwrite(str(desk.frame()), np.zeros((64, 48, 3), np.uint8))


def truth_larger(desk: Desk) -> None:
    """A clip whose sharp frames have another size than the blurry ones."""
    for path in (desk.clips / 'gt/b').iterdir():
        cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))


def clip_missing(desk: Desk) -> None:
    """A clip without ground truth."""
    shutil.rmtree(desk.clips / 'gt/b')


def clip_extra(desk: Desk) -> None:
    """Ground truth without a clip."""
    shutil.copytree(desk.clips / 'gt/b', desk.clips / 'gt/extra')


def clip_empty(desk: Desk) -> None:
    """A clip without frames, on both sides."""
    for side in ('lq', 'gt'):
        (desk.clips / side / 'hollow').mkdir()


def clip_short(desk: Desk) -> None:
    """A clip with fewer frames than a window."""
    for side in ('lq', 'gt'):
        for path in sorted((desk.clips / side / 'b').iterdir())[4:]:
            path.unlink()


def clip_small(desk: Desk) -> None:
    """A clip whose frames are smaller than the crops."""
    for side in ('lq', 'gt'):
        for path in (desk.clips / side / 'b').iterdir():
            cv2.imwrite(str(path), np.zeros((32, 47, 3), np.uint8))


def clip_is_file(desk: Desk) -> None:
    """A file with the name of a clip."""
    shutil.rmtree(desk.clips / 'lq/b')
    (desk.clips / 'lq/b').write_text('moved to the other disk')


def root_missing(desk: Desk) -> None:
    """No folder of clips."""
    shutil.rmtree(desk.clips / 'lq')


def root_empty(desk: Desk) -> None:
    """An empty folder instead of clips."""
    root_missing(desk)
    (desk.clips / 'lq').mkdir()


def root_is_file(desk: Desk) -> None:
    """A file instead of a folder of clips."""
    root_missing(desk)
    (desk.clips / 'lq').write_bytes(b'lq')


def root_is_clip(desk: Desk) -> None:
    """Frames directly in the root folder."""
    shutil.move(desk.clips / 'lq/b', desk.inputs / 'b')
    root_missing(desk)
    shutil.move(desk.inputs / 'b', desk.clips / 'lq')


def root_too_high(desk: Desk) -> None:
    """Frames one level too deep."""
    (desk.clips / 'lq/above').mkdir()
    for clip in 'ab':
        shutil.move(desk.clips / 'lq' / clip, desk.clips / 'lq/above')


def frame_named_in_latin1(desk: Desk) -> None:
    """A frame whose name is not UTF-8 in one folder and UTF-8 in the other."""
    os.rename(desk.frame(), os.fsencode(desk.frame().parent) + b'/fl\xe4che.png')
    os.rename(desk.frame('gt'), desk.frame('gt').with_name('fl\u00e4che.png'))


def clip_named_in_latin1(desk: Desk) -> None:
    """A clip whose name is not UTF-8 in both folders."""
    for side in ('lq', 'gt'):
        os.rename(desk.clips / side / 'b', os.fsencode(desk.clips / side) + b'/fl\xe4che')


# change, name in the message, readers
_LAYOUTS = (
    (frame_missing, NAME, train, validate, test, evaluate),
    (frame_extra, '00000099', train, test, evaluate_clip),
    (frame_is_folder, NAME, train, evaluate, lmdb, video),
    (frame_is_dangling, NAME, train, test, tiles, video),
    (frame_links_to_itself, NAME, train, lmdb, video),
    (frame_twice, NAME, train, evaluate, lmdb),
    (frame_larger, NAME, train, evaluate, lmdb, video),
    (truth_larger, "'b'", train, validate, test, evaluate),
    (clip_missing, "'b'", train, test, evaluate),
    (clip_extra, "'extra'", train, evaluate),
    (clip_empty, "'hollow'", train, test, lmdb),
    (clip_short, "'b'", train),
    (clip_small, "'b'", train, train_luma),
    (clip_is_file, "'b'", train, evaluate),
    (root_missing, 'clips/lq', train, test, evaluate, lmdb, tiles),
    (root_empty, 'clips/lq', train, validate, evaluate, lmdb, tiles),
    (root_is_file, 'clips/lq', train, test, evaluate, lmdb),
    (root_is_clip, 'clips/lq', train, lmdb),
    (root_too_high, 'clips/lq/above', train, test, lmdb),
    (frame_named_in_latin1, 'che', train, test, evaluate),
    (clip_named_in_latin1, 'che', train, test, evaluate, lmdb, tiles),
)
