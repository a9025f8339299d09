"""Damaged lists of clips (``meta_info_file``)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cases import Case, Desk

__all__ = ['lists']

_GOOD = 'a 8 (48,48,3)\nb 8 (48,48,3)\n'
_CONTENTS = {
    'empty': (b'', 'clips.txt'),
    'blank': (b'\n \n\t\n', 'clips.txt'),
    'zeroed': (bytes(40), 'clips.txt:1'),
    'garbage': (b'\xff\xfe\x80\x81\n' * 5, 'clips.txt'),
    'utf16': (_GOOD.encode('utf-16'), 'clips.txt'),
    'page': (b'<!DOCTYPE html>\n<html></html>\n', 'clips.txt:1'),
    'names_alone': (b'a\nb\n', 'clips.txt:1'),
    'tabs': (_GOOD.replace(' ', '\t').encode(), 'clips.txt:1'),
    'cut': (_GOOD.encode()[:-6], 'clips.txt:2'),
    'count_too_large': (_GOOD.replace('b 8', 'b 9').encode(), 'clips.txt:2'),
    'count_too_small': (_GOOD.replace('b 8', 'b 7').encode(), 'clips.txt:2'),
    'count_negative': (_GOOD.replace('b 8', 'b -8').encode(), 'clips.txt:2'),
    'count_huge': (_GOOD.replace('b 8', f'b {"8" * 5000}').encode(), 'clips.txt:2'),
    'count_zero': (_GOOD.replace('b 8', 'b 0').encode(), 'clips.txt:2'),
    'count_no_number': (_GOOD.replace('b 8', 'b eight').encode(), 'clips.txt:2'),
    'size_wrong': (_GOOD.replace('b 8 (48,48', 'b 8 (48,64').encode(), 'clips.txt:2'),
    'size_zero': (_GOOD.replace('b 8 (48,48', 'b 8 (0,0').encode(), 'clips.txt:2'),
    'size_huge': (_GOOD.replace('b 8 (48', f'b 8 ({"9" * 5000}').encode(), 'clips.txt:2'),
    'size_without_brackets': (_GOOD.replace('(', '').replace(')', '').encode(), 'clips.txt:1'),
    'clip_unknown': ((_GOOD + 'c 8 (48,48,3)\n').encode(), "'c'"),
    'clip_misspelt': (_GOOD.replace('b 8', 'bb 8').encode(), "'bb'"),
    'clip_with_path': (_GOOD.replace('b 8', '../lq/b 8').encode(), "'../lq/b'"),
    'clip_twice': ((_GOOD + 'b 8 (48,48,3)\n').encode(), 'clips.txt:3'),
    'frames_of_a_database': (b'a/00000000.png (48,48,3) 1\n', 'clips.txt:1'),
}


def lists() -> Iterator[Case]:
    """Yields lists for training and testing alternately."""
    for number, (name, (content, culprit)) in enumerate(_CONTENTS.items()):
        command = ('train', 'test')[number % 2]
        yield Case(f'list-{name}-{command}', partial(_listed, content, command), (culprit,))
    for command in ('train', 'test'):
        yield Case(f'list-folder-{command}', partial(_folder, command), ('clips.txt',))


def _listed(content: bytes, command: str, desk: Desk) -> list[object]:
    (desk.inputs / 'clips.txt').write_bytes(content)
    return _used(command, desk)


def _folder(command: str, desk: Desk) -> list[object]:
    (desk.inputs / 'clips.txt').mkdir()
    return _used(command, desk)


def _used(command: str, desk: Desk) -> list[object]:
    changes = {f'datasets.{command}.meta_info_file': str(desk.inputs / 'clips.txt')}
    return (desk.train if command == 'train' else desk.test)(changes=changes)
