"""Damaged data sets in their published layouts, and damaged videos, for ``dblr prepare``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cases import Case, Desk
from mutations import ANY_FILE, ENDS_OF_IMAGES, INSIDE_OF_PNG, Damage, damage

__all__ = ['sources']


def sources() -> Iterator[Case]:
    """Yields damaged frames with each option, wrong folders of each layout, and videos."""
    kinds = list(ENDS_OF_IMAGES.items())
    for number, (name, kind) in enumerate(kinds):
        for layout in ('dvd-qualitative',) if number % 4 else ('dvd-qualitative', 'kitti'):
            extra = _EXTRAS[number % len(_EXTRAS)]
            frame = _FRAMES[layout]
            spoil = partial(_damaged_frame, layout, frame, kind, extra)
            again = layout == 'kitti' and number > 0
            yield Case(f'layout-{layout}-{name}{"".join(extra)}', spoil, (Path(frame).name,), again=again)
    for layout, name in (('dvd', 'cut_late'), ('gopro', 'empty')):
        frame = _FRAMES[layout]
        spoil = partial(_damaged_frame, layout, frame, ENDS_OF_IMAGES[name], ())
        yield Case(f'layout-{layout}-{name}', spoil, (Path(frame).name,), again=True)
    for layout, change, culprit in _LAYOUTS:
        yield Case(f'layout-{layout}-{change.__name__}', partial(_changed, layout, change), (culprit,))
    for name, kind in INSIDE_OF_PNG.items():
        # frames are decoded only for tiles; what was done before is kept for resuming
        spoil = partial(_damaged_frame, 'dvd-qualitative', _FRAMES['dvd-qualitative'], kind, ('--tiles',))
        yield Case(f'layout-dvd-qualitative-{name}--tiles', spoil, ('00001',), resumable=True)
    yield from _videos()


_FRAMES = {
    'dvd': 'IMG_0030/input/00007.png',
    'dvd-qualitative': 'scene7/input/00001.png',
    'gopro': 'test/GOPR0862_11_00/blur_gamma/000009.png',
    'bsd': 'test/004/Blur/RGB/00000009.png',
    'kitti': 'blur/image_2/000005_10.png',
    'reds': 'train/train_blur',
}
_CHOICES = {
    'gopro': ('--blur', 'blur_gamma'),
    'bsd': ('--exposure', '3ms24ms'),
    'reds': ('--blur', 'blur'),
}
_EXTRAS = ((), ('--copy',), ('--lmdb',), ('--tiles',), ('--copy', '--lmdb', '--tiles'))


def _prepare(layout: str, source: Path, extra: tuple[str, ...] = ()) -> list[object]:
    return ['prepare', layout, source, 'made', *_CHOICES.get(layout, ()), *extra]


def _damaged_frame(layout: str, frame: str, kind: Damage, extra: tuple[str, ...], desk: Desk) -> list[object]:
    root = desk.mirror(layout, str(Path(frame).parent))
    damage(root / frame, kind)
    return _prepare(layout, root, extra)


def _changed(layout: str, change: Callable[[Path], None], desk: Desk) -> list[object]:
    root = desk.mirror(layout, str(Path(_FRAMES[layout]).parent))
    change(root)
    return _prepare(layout, root)


def scene_missing(root: Path) -> None:
    """A missing scene."""
    (root / 'scene8').unlink()


def scene_empty(root: Path) -> None:
    """A scene without frames."""
    for path in (root / 'scene7/input').iterdir():
        path.unlink()


def scene_named_in_latin1(root: Path) -> None:
    """A scene whose name is not UTF-8."""
    os.rename(root / 'scene7', os.fsencode(root) + b'/sc\xe8ne7')


def frame_named_in_latin1(root: Path) -> None:
    """A frame whose name is not UTF-8."""
    folder = root / 'scene7/input'
    os.rename(folder / '00001.png', os.fsencode(folder) + b'/\xe41.png')


def nothing_there(root: Path) -> None:
    """A missing data set."""
    shutil.rmtree(root)


def file_instead(root: Path) -> None:
    """An archive that was not unpacked."""
    shutil.rmtree(root)
    root.write_bytes(b'PK\3\4')


def nothing_in_it(root: Path) -> None:
    """An empty folder."""
    shutil.rmtree(root)
    root.mkdir()


def links_dangle(root: Path) -> None:
    """Links to a disk that is not mounted."""
    for path in (root / 'scene7/input').iterdir():
        path.unlink()
        path.symlink_to('/nowhere' / Path(path.name))


def frame_is_folder(root: Path) -> None:
    """A folder with the name of a frame."""
    (root / 'scene7/input/00001.png').unlink()
    (root / 'scene7/input/00001.png').mkdir()


def video_unknown(root: Path) -> None:
    """A video that does not belong to the data set."""
    (root / 'holidays').mkdir()


def gap(root: Path) -> None:
    """A missing frame within a blurry sequence."""
    (root / 'test/GOPR0862_11_00/blur_gamma/000009.png').unlink()


def sequence_missing(root: Path) -> None:
    """A missing sequence of a data set whose names are not published."""
    shutil.rmtree(root / 'test/004')


def scene_of_two_frames(root: Path) -> None:
    """A scene without its last frame."""
    (root / 'blur/image_2/000005_11.png').unlink()


def clip_short(root: Path) -> None:
    """A clip without its last frame."""
    (root / 'train/train_blur/000/00000099.png').unlink()


def clip_unknown(root: Path) -> None:
    """A clip with a number that is not in the data set."""
    (root / 'train/train_blur/999').mkdir()


def blur_missing(root: Path) -> None:
    """Sharp frames without blurry ones."""
    shutil.rmtree(root / 'train/train_blur')


_LAYOUTS = (
    *(('dvd-qualitative', change, culprit) for change, culprit in (
        (scene_missing, '21 of 22'), (scene_empty, 'scene7'), (scene_named_in_latin1, 'ne7'),
        (frame_named_in_latin1, '1.png'), (nothing_there, 'dvd-qualitative'), (file_instead, 'dvd-qualitative'),
        (nothing_in_it, 'dvd-qualitative'), (links_dangle, 'scene7'), (frame_is_folder, '00001.png'),
    )),
    *((layout, change, layout) for layout in ('dvd', 'gopro', 'bsd', 'kitti', 'reds')
      for change in (nothing_there, nothing_in_it)),
    ('dvd', video_unknown, 'holidays'),
    ('gopro', gap, '000009'),
    ('bsd', sequence_missing, '19 of 20'),
    ('kitti', scene_of_two_frames, '000005'),
    ('reds', clip_short, "'train/000'"),
    ('reds', clip_unknown, 'train_blur/999'),
    ('reds', blur_missing, 'train_blur'),
)  # fmt: skip

# ---------------------------------------------------------------------- videos


def _videos() -> Iterator[Case]:
    for row, suffix in enumerate(('mp4', 'mkv', 'avi', 'mpg')):
        for number, (name, kind) in enumerate(ANY_FILE.items()):
            if (suffix, name) not in _STILL_VIDEOS:
                spoil, again = partial(_damaged_video, suffix, kind), number % 4 != row
                yield Case(f'video-{suffix}-{name}', spoil, (f'video.{suffix}',), again=again)
    for name, supply in (('one_frame', 'one.mp4'), ('no_frame', 'none.mkv'), ('sound_alone', 'sound.wav')):
        yield Case(f'video-{name}', partial(_video, supply), (supply,))
    yield Case('video-one_of_several', _one_of_several, ('second.mp4',))
    yield Case('video-two_of_one_name', _two_of_one_name, ('video.mkv',))
    yield Case('video-folder_of_texts', _folder_of_texts, ('notes',))
    yield Case('video-missing', lambda desk: _made(desk.inputs / 'nothing.mp4'), ('nothing.mp4',))
    yield Case('video-dangling', _dangling, ('video.mp4',))
    yield Case('video-named_in_latin1', _named_in_latin1, ('.mp4',))


# after such damage players find the next frame, unless the format needs an index
_STILL_VIDEOS = {
    *((suffix, name) for suffix in ('mkv', 'avi', 'mpg') for name in ('cut_anywhere', 'header_overwritten')),
    *((suffix, 'zip_instead') for suffix in ('avi', 'mpg')),
}


def _made(source: Path) -> list[object]:
    return ['prepare', 'video', source, 'made', '--average', '3']


def _damaged_video(suffix: str, kind: Damage, desk: Desk) -> list[object]:
    path = desk.copy(f'video.{suffix}')
    damage(path, kind)
    return _made(path)


def _video(supply: str, desk: Desk) -> list[object]:
    return _made(desk.copy(supply))


def _one_of_several(desk: Desk) -> list[object]:
    (desk.inputs / 'films').mkdir()
    desk.copy('video.mp4', 'films/first.mp4')
    damage(desk.copy('video.mp4', 'films/second.mp4'), ANY_FILE['all_zeroed'])
    return _made(desk.inputs / 'films')


def _two_of_one_name(desk: Desk) -> list[object]:
    (desk.inputs / 'films').mkdir()
    desk.copy('video.mp4', 'films/video.mp4')
    desk.copy('video.mkv', 'films/video.mkv')
    return _made(desk.inputs / 'films')


def _folder_of_texts(desk: Desk) -> list[object]:
    (desk.inputs / 'notes').mkdir()
    (desk.inputs / 'notes/video.txt').write_text('later')
    return _made(desk.inputs / 'notes')


def _dangling(desk: Desk) -> list[object]:
    (desk.inputs / 'films').mkdir()
    (desk.inputs / 'films/video.mp4').symlink_to('/nowhere/video.mp4')
    return _made(desk.inputs / 'films')


def _named_in_latin1(desk: Desk) -> list[object]:
    (desk.inputs / 'films').mkdir()
    path = desk.copy('video.mp4', 'films/video.mp4')
    os.rename(path, os.fsencode(path.parent) + b'/\xfcber.mp4')
    return _made(desk.inputs / 'films')
