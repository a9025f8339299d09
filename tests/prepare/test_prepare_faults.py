"""Faults in sources are reported at once with the fix before anything is written, or left out and recorded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from source_trees import Picture, numbered

from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.data_sets import Clip, Plan
from dblr_plugin.prepare.layout import prepare_layout

COUNTS = {'a': 8, 'b': 8, 'c': 6}


def plan_of(source: Path) -> Plan:
    clips = tuple(Clip('train', name, source / name / 'blur', source / name / 'sharp', n) for name, n in COUNTS.items())
    return Plan('own', '', source, '<clip>/{blur,sharp}/00000000.png', clips)


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # a hard link: writing to it would change all frames
    path.write_bytes(content)


def truncate(source: Path) -> None:
    replace(source / 'b/blur/00000003.png', (source / 'b/blur/00000003.png').read_bytes()[:-30])


def empty(source: Path) -> None:
    replace(source / 'b/sharp/00000003.png', b'')


def damage(source: Path) -> None:
    replace(source / 'b/blur/00000003.png', b'no image at all')


def remove_frame(source: Path) -> None:
    (source / 'b/sharp/00000003.png').unlink()


def remove_pair(source: Path) -> None:
    for side in ('blur', 'sharp'):
        (source / f'b/{side}/00000003.png').unlink()


def add_frame(source: Path) -> None:
    os.link(source / 'b/blur/00000003.png', source / 'b/blur/00000099.png')


def repeat_frame(source: Path) -> None:
    shutil.copy(source / 'b/blur/00000003.png', source / 'b/blur/00000003.jpg')


def remove_clip(source: Path) -> None:
    shutil.rmtree(source / 'b')


def remove_all_frames(source: Path) -> None:
    for path in (source / 'b').glob('*/*.png'):
        path.unlink()


FAULTS = [
    (truncate, 'b/blur/00000003.png is truncated'),
    (empty, 'b/sharp/00000003.png is empty'),
    (damage, 'b/blur/00000003.png has no readable image header'),
    (remove_frame, 'b/blur/00000003.png has no counterpart in .*b/sharp'),
    (remove_pair, 'b/blur has 7 of 8 frames: 00000003 missing'),
    (add_frame, 'b/blur/00000099.png has no counterpart'),
    (repeat_frame, 'two files of one frame: 00000003.* and 00000003'),
    (remove_clip, "clip 'train/b' is missing: no folder .*b/blur and no .*b/sharp"),
    (remove_all_frames, 'b/blur has 0 of 8 frames'),
]


@pytest.mark.parametrize(('harm', 'message'), FAULTS, ids=[harm.__name__ for harm, _ in FAULTS])
def test_fault_is_reported_or_its_clip_left_out(pairs: Path, tmp_path: Path, harm, message: str) -> None:
    harm(pairs)
    with pytest.raises(DBLRError, match=message) as error:
        prepare_layout(plan_of(pairs), tmp_path / 'tree')
    assert 'download again' in str(error.value)
    assert 'continue with the 2 complete clips: --allow-partial' in str(error.value)
    assert not (tmp_path / 'tree').exists()
    content = prepare_layout(plan_of(pairs), tmp_path / 'tree', allow_partial=True).manifest
    assert content['parts']['train']['clips'] == 2 and content['parts']['train']['frames'] == 14
    assert (
        content['left_out']
        and content['left_out'] == json.loads((tmp_path / 'tree/dataset.json').read_text())['left_out']
    )
    assert sorted(os.listdir(tmp_path / 'tree/train/lq')) == ['a', 'c']


def test_frame_numbered_by_the_clock_is_reported(pairs: Path, tmp_path: Path) -> None:
    """It leaves a gap of 1.7 trillion frames, too many to list."""
    for side in ('blur', 'sharp'):
        os.link(pairs / f'b/{side}/00000003.png', pairs / f'b/{side}/1700000000000.png')
    with pytest.raises(DBLRError, match=r'b/blur has 9 of 8 frames: 00000008, 00000009, 00000010 \.\.\. missing'):
        prepare_layout(plan_of(pairs), tmp_path / 'tree')


def test_pair_of_different_sizes_is_reported(pairs: Path, tmp_path: Path, picture: Picture) -> None:
    path = pairs / 'b/sharp/00000005.png'
    path.unlink()
    os.link(picture((12, 18)), path)
    with pytest.raises(DBLRError, match=r"'train/b': .*b/sharp/00000005.png is 18x12 \(w x h\), but .*is 16x12"):
        prepare_layout(plan_of(pairs), tmp_path / 'tree')


def test_ten_faults_are_listed_and_the_others_counted(pairs: Path, tmp_path: Path) -> None:
    truncate(pairs)
    for name in numbered(8):
        replace(pairs / 'a/blur' / name, b'')
    for name in numbered(5):
        replace(pairs / 'c/blur' / name, b'')
    with pytest.raises(DBLRError) as error:
        prepare_layout(plan_of(pairs), tmp_path / 'tree')
    text = str(error.value)
    assert text.startswith(f'14 faults in {pairs}:') and 'and 4 more' in text
    assert 'a/blur/00000007.png is empty' in text and 'b/blur/00000003.png is truncated' in text
    assert '--allow-partial' not in text, 'no clip is complete'
    with pytest.raises(DBLRError, match='14 faults'):
        prepare_layout(plan_of(pairs), tmp_path / 'tree', allow_partial=True)


def test_repaired_source_completes_a_partial_tree(pairs: Path, tmp_path: Path) -> None:
    good = (pairs / 'b/blur/00000003.png').read_bytes()
    damage(pairs)
    prepare_layout(plan_of(pairs), tmp_path / 'tree', allow_partial=True)
    replace(pairs / 'b/blur/00000003.png', good)
    prepared = prepare_layout(plan_of(pairs), tmp_path / 'tree')
    assert not prepared.was_complete and 'left_out' not in prepared.manifest
    assert prepared.manifest['parts']['train']['clips'] == 3


def test_files_other_than_frames_are_ignored(pairs: Path, tmp_path: Path) -> None:
    for name in ('.DS_Store', 'Thumbs.db', '._00000001.png'):
        (pairs / 'a/blur' / name).write_bytes(b'x')
    assert prepare_layout(plan_of(pairs), tmp_path / 'tree').manifest['parts']['train']['frames'] == 22
