"""The provenance in a report changes with the data and files, and with nothing else."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from dblr_plugin.benchmark.record import describe_data, describe_run
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.tree import TreeClip, begin, finish


def write_frames(root: Path, frames: int = 2) -> Path:
    for side in ('lq', 'gt'):
        for i in range(frames):
            path = root / side / 'a' / f'{i:05d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'x' * (i + 1))
    return root


@pytest.fixture
def tree(tmp_path):
    begin(tmp_path / 'tree', 'dvd', '')
    write_frames(tmp_path / 'tree/test')
    finish(tmp_path / 'tree', 'dvd', '', [TreeClip('test', 'a', 2, (16, 16))], {})
    return tmp_path / 'tree'


class TestPreparedData:
    def test_manifest_identifies_the_data(self, tree):
        manifest = json.loads((tree / 'dataset.json').read_text())
        for root in (tree, tree / 'test/lq', tree / 'test/gt'):
            found = describe_data(root)
            assert found['sha256'] == manifest['sha256'] and found['kind'] == 'dvd'
            assert (found['path'], found['of']) == (str(root), str(tree / 'dataset.json'))

    @pytest.mark.parametrize('change', ['removed', 'longer', 'manifest'])
    def test_changed_data_is_identified_by_names_and_sizes(self, tree, change):
        if change == 'removed':
            (tree / 'test/lq/a/00001.png').unlink()
        elif change == 'longer':
            (tree / 'test/lq/a/00001.png').write_bytes(b'123')
        else:
            (tree / 'dataset.json').write_text('{')
        assert describe_data(tree / 'test/gt')['of'] == 'names and sizes'

    def test_other_data_in_the_folder_is_identified_by_names_and_sizes(self, tree):
        write_frames(tree / 'mine')
        assert describe_data(tree / 'mine/gt')['of'] == 'names and sizes'


class TestOtherData:
    def test_names_and_sizes_identify_other_data(self, tmp_path):
        found = describe_data(write_frames(tmp_path / 'one') / 'gt')
        assert found['sha256'] == hashlib.sha256(b'a/00000.png 1\na/00001.png 2\n').hexdigest()
        assert found['sha256'] == describe_data(write_frames(tmp_path / 'two') / 'gt')['sha256']
        assert found['sha256'] != describe_data(write_frames(tmp_path / 'three', 3) / 'gt')['sha256']

    def test_missing_or_empty_folder_is_refused(self, tmp_path):
        (tmp_path / 'empty').mkdir()
        for name in ('empty', 'absent'):
            with pytest.raises(DBLRError, match=f'{name} holds no files'):
                describe_data(tmp_path / name)


def test_run_description_is_json(tree):
    option_file = tree / 'test.yml'
    option_file.write_text('name: a\n')
    found = describe_run([option_file], {'DVD': tree / 'test/gt'}, torch.device('cpu'), ['dblr benchmark'])
    assert json.loads(json.dumps(found)) == found
    assert found['files'] == [{'path': str(option_file), 'sha256': hashlib.sha256(b'name: a\n').hexdigest()}]
    assert found['commands'] == ['dblr benchmark'] and found['device'] == 'cpu'
    assert found['data']['DVD']['kind'] == 'dvd'
    assert {'torch', 'basicsr', 'python'} <= found['versions'].keys()
    assert {'machine', 'commit'} <= found.keys()
