"""Unusable arguments and paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import cv2
from cases import Case, Desk

__all__ = ['places']

_NAMES = {'basicsr/archs/dblr_compat_arch.py': '0', 'basicsr/models/dblr_model.py': '0'}


def places() -> Iterator[Case]:
    """Yields the cases of each command."""
    for spoil, culprit in _CASES:
        yield Case(f'place-{spoil.__name__}', spoil, (culprit,))
    for name, text in _MANIFESTS.items():
        yield Case(f'place-link_manifest-{name}', _manifest(text), ('.dblr_link.json',))


def _manifest(text: bytes) -> Callable[[Desk], list[object]]:
    def spoil(desk: Desk) -> list[object]:
        root = desk.copy('checkout')
        (root / '.dblr_link.json').write_bytes(text)
        return ['link', root, '--unlink']

    return spoil


_MANIFESTS = {
    'empty': b'',
    'cut': json.dumps(_NAMES).encode()[:-9],
    'noise': bytes(range(128, 256)),
    'list': b'[1, 2]',
    'number': b'7',
    'zeroed': bytes(30),
}


def link_nothing(desk: Desk) -> list[object]:
    """A missing folder."""
    return ['link', desk.inputs / 'nothing']


def link_no_checkout(desk: Desk) -> list[object]:
    """A folder that is not a checkout."""
    return ['link', desk.copy('clips')]


def link_without_version(desk: Desk) -> list[object]:
    """A checkout without VERSION."""
    root = desk.copy('checkout')
    (root / 'VERSION').unlink()
    return ['link', root]


def link_taken(desk: Desk) -> list[object]:
    """A checkout with another file of the same name as ours."""
    root = desk.copy('checkout')
    (root / 'basicsr/models/dblr_model.py').write_text('mine')
    return ['link', root]


def link_options_is_file(desk: Desk) -> list[object]:
    """A file in place of the folder of option files."""
    root = desk.copy('checkout')
    (root / 'options').write_text('none')
    return ['link', root]


def link_not_linked(desk: Desk) -> list[object]:
    """A checkout without links to remove."""
    return ['link', desk.copy('checkout'), '--unlink']


def evaluate_json_nowhere(desk: Desk) -> list[object]:
    """Scores for a folder that does not exist."""
    return ['evaluate', desk.clips / 'lq', desk.clips / 'gt', '--json', 'nowhere/figures.json']


def evaluate_json_is_folder(desk: Desk) -> list[object]:
    """Scores for a path that is a folder."""
    return ['evaluate', desk.clips / 'lq', desk.clips / 'gt', '--json', desk.clips]


def evaluate_protocol(desk: Desk) -> list[object]:
    """A protocol that does not exist."""
    return ['evaluate', desk.clips / 'lq', desk.clips / 'gt', '--protocol', 'psnrr']


def evaluate_file(desk: Desk) -> list[object]:
    """Text in place of a video."""
    desk.frame('lq').with_suffix('.mp4').write_text('no video' * 100)
    return ['evaluate', desk.frame('lq').with_suffix('.mp4'), desk.frame('gt')]


def evaluate_suffixes(desk: Desk) -> list[object]:
    """Results whose names have different suffixes."""
    for number, path in enumerate(sorted((desk.clips / 'lq/b').iterdir())):
        path.rename(path.with_stem(f'{path.stem}_net{number}'))
    return ['evaluate', desk.clips / 'lq', desk.clips / 'gt']


def evaluate_tiny(desk: Desk) -> list[object]:
    """Frames smaller than the window of a metric."""
    for path in desk.clips.glob('*/*/*.png'):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (8, 8)))
    return ['evaluate', desk.clips / 'lq', desk.clips / 'gt', '--protocol', 'all']


def evaluate_lmdb_of_text(desk: Desk) -> list[object]:
    """A file with the name of a database."""
    (desk.inputs / 'results.lmdb').write_text('no database')
    return ['evaluate', desk.inputs / 'results.lmdb', desk.clips / 'gt']


def lmdb_without_ending(desk: Desk) -> list[object]:
    """A database name that BasicSR would not recognise."""
    return ['prepare', 'lmdb', desk.clips / 'lq', 'database']


def lmdb_nowhere(desk: Desk) -> list[object]:
    """A database in a folder that does not exist."""
    return ['prepare', 'lmdb', desk.clips / 'lq', 'nowhere/made.lmdb']


def lmdb_taken(desk: Desk) -> list[object]:
    """An existing database."""
    return ['prepare', 'lmdb', desk.clips / 'lq', desk.copy('lmdb') / 'lq.lmdb']


def lmdb_of_lmdb(desk: Desk) -> list[object]:
    """A database of a database."""
    return ['prepare', 'lmdb', desk.copy('lmdb') / 'lq.lmdb', 'made.lmdb']


def prepare_into_file(desk: Desk) -> list[object]:
    """A file in place of the output folder."""
    (desk.inputs / 'made').write_text('mine')
    return ['prepare', 'dvd-qualitative', desk.supplies['dvd-qualitative'], desk.inputs / 'made']


def prepare_below_file(desk: Desk) -> list[object]:
    """A file in place of a parent of the output folder."""
    (desk.inputs / 'made').write_text('mine')
    return ['prepare', 'dvd-qualitative', desk.supplies['dvd-qualitative'], desk.inputs / 'made/tree']


def prepare_into_others(desk: Desk) -> list[object]:
    """An output folder with other files."""
    return ['prepare', 'dvd-qualitative', desk.supplies['dvd-qualitative'], desk.clips]


def prepare_into_other_set(desk: Desk) -> list[object]:
    """An output folder with another data set."""
    (desk.inputs / 'made').mkdir()
    (desk.inputs / 'made/dataset.json').write_text('{"kind": "gopro", "variant": "blur"}')
    return ['prepare', 'dvd-qualitative', desk.supplies['dvd-qualitative'], desk.inputs / 'made']


def prepare_without_blur(desk: Desk) -> list[object]:
    """A missing choice of the kind of blur."""
    return ['prepare', 'gopro', desk.supplies['gopro'], 'made']


def video_of_even_average(desk: Desk) -> list[object]:
    """An exposure of an even number of frames, which has no middle."""
    return ['prepare', 'video', desk.supplies['video.mp4'], 'made', '--average', '4']


def video_too_short(desk: Desk) -> list[object]:
    """An exposure longer than the video."""
    return ['prepare', 'video', desk.supplies['video.mp4'], 'made', '--average', '99']


def video_share_nan(desk: Desk) -> list[object]:
    """A share that is NaN."""
    return ['prepare', 'video', desk.supplies['video.mp4'], 'made', '--test-share', 'nan']


def video_shake_nan(desk: Desk) -> list[object]:
    """An amplitude that is NaN."""
    return ['prepare', 'video', desk.supplies['video.mp4'], 'made', '--average', '3', '--shake', 'nan']


def video_shake_infinite(desk: Desk) -> list[object]:
    """An infinite amplitude."""
    return ['prepare', 'video', desk.supplies['video.mp4'], 'made', '--average', '3', '--shake', 'inf']


def train_without_file(desk: Desk) -> list[object]:
    """A missing option file."""
    return ['train', '-opt', desk.inputs / 'nothing.yml']


def test_of_folder(desk: Desk) -> list[object]:
    """A folder in place of an option file."""
    (desk.inputs / 'options.yml').mkdir()
    return ['test', '-opt', desk.inputs / 'options.yml']


def train_without_arguments(desk: Desk) -> list[object]:
    """A missing argument for the option file."""
    return ['train']


def no_such_command(desk: Desk) -> list[object]:
    """A command that does not exist."""
    return ['deblurr', 'x']


_CASES = (
    (link_nothing, 'nothing'), (link_no_checkout, 'clips'), (link_without_version, 'VERSION'),
    (link_taken, 'dblr_model.py'), (link_options_is_file, 'options'),
    (link_not_linked, '.dblr_link.json'),
    (evaluate_json_nowhere, '--json'), (evaluate_json_is_folder, '--json'), (evaluate_protocol, 'psnrr'),
    (evaluate_file, '00000003.mp4'), (evaluate_suffixes, "'b/"), (evaluate_lmdb_of_text, 'results.lmdb'),
    (evaluate_tiny, '8x8'),
    (lmdb_without_ending, 'database'), (lmdb_nowhere, 'nowhere'), (lmdb_taken, 'lq.lmdb'), (lmdb_of_lmdb, 'lq.lmdb'),
    (prepare_into_file, 'made'), (prepare_below_file, 'made/tree'), (prepare_into_others, 'clips'),
    (prepare_into_other_set, 'gopro'), (prepare_without_blur, '--blur'),
    (video_of_even_average, '4'), (video_too_short, '99'), (video_share_nan, 'share'), (video_shake_nan, 'shake'),
    (video_shake_infinite, 'shake'),
    (train_without_file, 'nothing.yml'), (test_of_folder, 'options.yml'), (train_without_arguments, '-opt'),
    (no_such_command, 'deblurr'),
)  # fmt: skip
