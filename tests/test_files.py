"""Files that are there whole or not at all, and what is said when they cannot be written."""

import errno
import os
import shutil

import numpy as np
import pytest
import torch
from processes import files_of_at_most

from dblr_plugin.console import explain
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.scores import write_json
from dblr_plugin.evaluation.validation import write_picture
from dblr_plugin.files import atomic_write, check_writable, partial_of, require_space, write_whole
from dblr_plugin.weights.checkpoint import save_atomically


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_what_the_system_says_is_told_with_the_file_and_a_cure(tmp_path, code):
    with (
        pytest.raises(DBLRError, match=r'a\.txt could not be written: [^;]+; \w+') as caught,
        atomic_write(tmp_path / 'a.txt'),
    ):
        raise OSError(code, os.strerror(code))
    assert ('disk is full' in str(caught.value)) == (code == errno.ENOSPC)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / 'a.txt'):
        (tmp_path / 'source').read_bytes()


@pytest.mark.parametrize('length', [246, 247, 250, 255])
def test_every_legal_name(tmp_path, length):
    path = tmp_path / ('n' * length)
    check_writable(path)
    assert not list(tmp_path.iterdir())
    with atomic_write(path) as partial:
        partial.write_text('whole')
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and path.read_text() == 'whole'
    assert partial_of(path).name.startswith('.') and partial_of(path).name.endswith('.partial')


@pytest.mark.parametrize(('name', 'reason'), [
    ('n' * 256, 'name is too long'), ('none/a', 'folder does not exist'), ('file/a', 'part of the path is a file'),
])  # fmt: skip
def test_what_cannot_be_written_is_told_before_and_after(tmp_path, name, reason):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DBLRError, match=reason):
        check_writable(tmp_path / name)
    with pytest.raises(DBLRError, match=reason), atomic_write(tmp_path / name) as partial:
        partial.write_text('x')


def _copied(path):
    with atomic_write(path) as partial:
        shutil.copyfile(torch.__file__, partial)  # its error names the source first


def _array(path):
    with atomic_write(path) as partial, open(partial, 'wb') as file:
        np.save(file, np.zeros(100_000))  # its error has no number


@pytest.mark.parametrize('write', [
    lambda path: save_atomically({'params': {'w': torch.ones(100_000)}}, path.with_suffix('.pth')),
    lambda path: save_atomically({'params': {'w': torch.ones(100_000)}}, path.with_suffix('.safetensors')),
    lambda path: write_json(path, ['x' * 200_000]),
    lambda path: write_whole(path, 'x' * 200_000),
    _copied,
    _array,
    lambda path: write_picture(path, torch.randint(256, (300, 300, 3), dtype=torch.uint8).numpy()),
])  # fmt: skip
def test_all_that_writes_says_it_in_one_line_and_leaves_nothing(tmp_path, write):
    with files_of_at_most(50_000), pytest.raises(DBLRError, match='out.* could not be written') as caught:
        write(tmp_path / 'out')
    assert '\n' not in str(caught.value) and not list(tmp_path.iterdir())


def test_what_basicsr_cannot_write_is_told_in_one_line_too(tmp_path):
    assert explain(OSError(errno.EROFS, 'Read-only file system', '/x/run.log')).startswith('/x/run.log could not be')
    assert explain(BrokenPipeError(errno.EPIPE, 'Broken pipe')) is None


def test_space_is_told_in_units_that_show_what_is_missing(tmp_path):
    require_space(tmp_path, 1, 'a byte')
    with pytest.raises(
        DBLRError, match=r'the tree needs 1000000000\.0 GB and the disk has [\d.]+ [kMG]B free; make room'
    ):
        require_space(tmp_path, 10**18, 'the tree')
    with pytest.raises(DBLRError, match='none could not be written: its folder does not exist'):
        require_space(tmp_path / 'none', 1, 'a byte')
