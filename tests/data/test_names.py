"""Names of clips and frames read from files cannot point outside their folder."""

import pytest

from dblr_plugin.data.clips import read_clip_list, read_lmdb_meta
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import name_fault

LEADING_OUT = ['../../x', '/tmp/x', 'a/../../x', '..', '.', 'a//b', 'a/.', './a', 'a/', '\x1b[2Jx', 'a\x07']


@pytest.mark.parametrize('name', LEADING_OUT)
class TestRefused:
    def test_name_is_refused(self, name):
        assert name_fault(name)

    def test_name_in_a_clip_list_is_refused(self, tmp_path, name):
        (tmp_path / 'list.txt').write_text(f'a 3 (4,6,3)\n{name} 3 (4,6,3)\n')
        faults: list[str] = []
        assert [clip.name for clip in read_clip_list(tmp_path / 'list.txt', faults)] == ['a']
        assert len(faults) == 1 and 'list.txt:2: ' in faults[0] and '\x1b' not in faults[0]

    def test_name_in_a_database_is_refused(self, tmp_path, name):
        (tmp_path / 'meta_info.txt').write_text(f'{name}/00000000.png (4,6,3) 1\n')
        with pytest.raises(DBLRError, match=r'meta_info\.txt:1: ') as caught:
            read_lmdb_meta(tmp_path / 'meta_info.txt')
        assert str(caught.value).isprintable()


def test_frame_name_outside_its_folder_is_refused(tmp_path):
    (tmp_path / 'meta_info.txt').write_text('clip/...png (4,6,3) 1\n')
    with pytest.raises(DBLRError, match='leads out of its folder'):
        read_lmdb_meta(tmp_path / 'meta_info.txt')


@pytest.mark.parametrize('name', ['000', 'GOPR0372_07_00', 'my clip', 'scene/take 2', '..a', 'a..b', 'été', '日本'])
def test_usual_names_are_accepted(tmp_path, name):
    assert name_fault(name) is None
    (tmp_path / 'meta_info.txt').write_text(f'{name}/00000000.png (4,6,3) 1\n')
    assert read_lmdb_meta(tmp_path / 'meta_info.txt') == {name: {'00000000': (4, 6)}}
