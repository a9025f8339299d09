"""Damaged databases, in BasicSR's format and in tile format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import lmdb
from cases import Case, Desk
from corpus_frames import Reader, evaluate, test, train, train_with_worker, validate
from mutations import ANY_FILE, Damage, damage

__all__ = ['databases']

KEY = 'b/00000003'
_READERS: tuple[Reader, ...] = (train, evaluate, test, train_with_worker, validate)
Change = Callable[[Path], None]


def databases() -> Iterator[Case]:
    """Yields damaged files of a database, then damaged values in them."""
    number = 0
    for kind in ('lmdb', 'tiles'):
        for row, (change, culprit) in enumerate([*_FILES, *_MEANINGS[kind]]):
            reader = _READERS[number % len(_READERS)]
            number += 1
            spoil = partial(_spoiled, kind, change, reader)
            trained = reader is validate and change in _SEEN_WHEN_READ
            again = kind == 'tiles' and row < len(_FILES) and row % 4 > 0  # both kinds have these files
            yield Case(f'{kind}-{_name(change)}-{reader.__name__}', spoil, (culprit,), trained=trained, again=again)


def _name(change: Change) -> str:
    if isinstance(change, partial):
        return f'{change.args[0].split(".")[0]}-{change.args[1].__name__}'
    return change.__name__


def _spoiled(kind: str, change: Change, reader: Reader, desk: Desk) -> list[object]:
    folder = desk.copy(kind)
    change(folder / 'lq.lmdb')
    return reader(desk, folder / 'lq.lmdb', folder / 'gt.lmdb')


def _damage_file(name: str, kind: Damage, database: Path) -> None:
    damage(database / name, kind)


def _edit(database: Path, key: str, edit: Callable[[bytes], bytes | None]) -> None:
    """Replaces or removes a value."""
    with (
        lmdb.open(str(database), map_size=1 << 26, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        value = edit(bytes(transaction.get(key.encode())))
        transaction.delete(key.encode()) if value is None else transaction.put(key.encode(), value)


def _edit_meta(database: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path = database / 'meta_info.txt'
    path.write_text('\n'.join(edit(path.read_text().splitlines())))


def data_missing(database: Path) -> None:
    """A missing ``data.mdb``."""
    (database / 'data.mdb').unlink()


def data_is_folder(database: Path) -> None:
    """A folder in place of ``data.mdb``."""
    (database / 'data.mdb').unlink()
    (database / 'data.mdb').mkdir()


def pages_zeroed(database: Path) -> None:
    """Zeros in all pages except the first two, which refer to the others."""
    path = database / 'data.mdb'
    data = path.read_bytes()
    path.write_bytes(data[:8192] + bytes(len(data) - 8192))


def pages_of_noise(database: Path) -> None:
    """Noise in these pages."""
    path = database / 'data.mdb'
    data = path.read_bytes()
    path.write_bytes(data[:8192] + ANY_FILE['noise_instead'](data[8192:], Random(0)))


def meta_missing(database: Path) -> None:
    """A missing ``meta_info.txt``."""
    (database / 'meta_info.txt').unlink()


def meta_of_noise(database: Path) -> None:
    """Bytes that are not text."""
    (database / 'meta_info.txt').write_bytes(b'\xff\xfe\x00\x81' * 20)


def meta_cut(database: Path) -> None:
    """A truncated last line."""
    _edit_meta(database, lambda lines: [*lines[:-1], lines[-1][:14]])


def meta_names_too_much(database: Path) -> None:
    """A listed frame that is not in the database."""
    _edit_meta(database, lambda lines: [*lines, lines[-1].replace('00000007', '00000088')])


def meta_names_too_little(database: Path) -> None:
    """An unlisted frame of the blurry database, which the sharp one has."""
    _edit_meta(database, lambda lines: [line for line in lines if KEY not in line])


def meta_repeats(database: Path) -> None:
    """A frame that is listed twice."""
    _edit_meta(database, lambda lines: [*lines, next(line for line in lines if KEY in line)])


def meta_of_other_size(database: Path) -> None:
    """Sizes that differ from those of the frames."""
    _edit_meta(database, lambda lines: [line.replace('(48,48,3)', '(48,56,3)') for line in lines])


def meta_of_huge_size(database: Path) -> None:
    """A size with 5000 digits."""
    _edit_meta(database, lambda lines: [*lines[:-1], lines[-1].replace('(48,', f'({"4" * 5000},')])


def key_missing(database: Path) -> None:
    """A listed frame whose key is missing."""
    _edit(database, KEY, lambda value: None)


def value_empty(database: Path) -> None:
    """An empty value."""
    _edit(database, KEY, lambda value: b'')


def value_cut(database: Path) -> None:
    """Half a frame."""
    _edit(database, KEY, lambda value: value[: len(value) // 2])


def value_of_text(database: Path) -> None:
    """Text in place of a frame."""
    _edit(database, KEY, lambda value: b'<html>404</html>')


def value_flipped(database: Path) -> None:
    """A frame with a wrong byte."""
    _edit(database, KEY, lambda value: value[:600] + bytes([value[600] ^ 255]) + value[601:])


def head_cut(database: Path) -> None:
    """A truncated frame header."""
    _edit(database, KEY, lambda value: value[:9])


def head_zeroed(database: Path) -> None:
    """A frame header of zeros."""
    _edit(database, KEY, lambda value: bytes(len(value)))


def head_of_ones(database: Path) -> None:
    """A frame header of the largest numbers."""
    _edit(database, KEY, lambda value: b'\xff' * len(value))


def head_of_tiny_cells(database: Path) -> None:
    """A frame header with cells one pixel wide."""
    _edit(database, KEY, lambda value: value[:16] + (1).to_bytes(4, 'little') + value[20:])


def bundle_missing(database: Path) -> None:
    """A frame header without cells."""
    _edit(database, f'{KEY}/0', lambda value: None)


def bundle_cut(database: Path) -> None:
    """Half a bundle of cells."""
    _edit(database, f'{KEY}/0', lambda value: value[: len(value) // 2])


def bundle_of_noise(database: Path) -> None:
    """Noise in place of cells."""
    _edit(database, f'{KEY}/0', lambda value: ANY_FILE['noise_instead'](value, Random(0)))


def indices_beyond_the_end(database: Path) -> None:
    """Cells that begin after the end of the value."""
    _edit(database, f'{KEY}/0', lambda value: b'\xf0\xff\xff\x7f' * 2 + value[8:])


def cells_swapped(database: Path) -> None:
    """A cell of another format, with a valid checksum."""
    from dblr_plugin.data.tiles import pack_bundle

    _edit(database, f'{KEY}/0', lambda value: pack_bundle([[b'no compressed pixels']]))


def _marker(text: str) -> Change:
    def change(database: Path) -> None:
        (database / 'tiles.json').write_text(text)

    return change


def _named(name: str, change: Change) -> Change:
    change.__name__ = name
    return change


_FILES = (
    *((partial(_damage_file, 'data.mdb', kind), 'lq.lmdb') for kind in ANY_FILE.values()),
    *((partial(_damage_file, 'meta_info.txt', ANY_FILE[name]), 'meta_info.txt') for name in ('empty', 'all_zeroed')),
    (data_missing, 'lq.lmdb'),
    (data_is_folder, 'lq.lmdb'),
    (pages_zeroed, 'lq.lmdb'),
    (pages_of_noise, 'lq.lmdb'),
    (meta_missing, 'meta_info.txt'),
    (meta_of_noise, 'meta_info.txt'),
    (meta_cut, 'meta_info.txt:16'),
    (meta_names_too_much, '00000088'),
    (meta_names_too_little, KEY),
    (meta_repeats, 'meta_info.txt:17'),
    (meta_of_other_size, 'lq.lmdb'),
    (meta_of_huge_size, 'meta_info.txt'),
    (key_missing, KEY),
    (value_empty, KEY),
)
_MEANINGS = {
    'lmdb': ((value_cut, KEY), (value_of_text, KEY), (value_flipped, KEY)),
    'tiles': (
        (head_cut, KEY),
        (head_zeroed, KEY),
        (head_of_ones, KEY),
        (head_of_tiny_cells, KEY),
        (bundle_missing, KEY),
        (bundle_cut, KEY),
        (bundle_of_noise, KEY),
        (indices_beyond_the_end, KEY),
        (cells_swapped, KEY),
        (_named('marker_of_other_version', _marker(json.dumps({'version': 99, 'codecs': []}))), 'version 99'),
        (_named('marker_cut', _marker('{"version": 1, "cod')), 'tiles.json'),
        (_named('marker_empty', _marker('')), 'tiles.json'),
        (_named('marker_is_list', _marker('[1]')), 'tiles.json'),
        (_named('marker_without_codecs', _marker('{"version": 1}')), 'tiles.json'),
        (_named('marker_with_codecs_of_numbers', _marker('{"version": 1, "codecs": 5}')), 'tiles.json'),
    ),
}
_SEEN_WHEN_READ = {value_flipped, value_of_text, bundle_missing, bundle_cut, bundle_of_noise, indices_beyond_the_end,
                   cells_swapped, head_of_tiny_cells}  # fmt: skip
