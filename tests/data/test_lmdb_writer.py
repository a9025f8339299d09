"""Writing databases: BasicSR reads them, the bytes are untouched, and a failure leaves nothing."""

import argparse
import os
import resource

import lmdb
import pytest
from basicsr.utils import FileClient

from dblr_plugin.commands import prepare
from dblr_plugin.data.lmdb_writer import database_bytes, put_files, whole_folder, write_lmdb
from dblr_plugin.errors import DBLRError


@pytest.fixture
def tree(make_tree):
    root = make_tree('clips', {'alpha': 3, 'beta': 0})
    (root / 'beta').rmdir()
    make_tree('clips', {'jpeg': 2}, suffix='.jpg')
    return root


def test_basicsr_reads_the_unchanged_bytes(tree, tmp_path):
    database = tmp_path / 'x.lmdb'
    assert write_lmdb(tree, database, progress=False) == 5
    client = FileClient('lmdb', db_paths=[str(database)], client_keys=['lq'])
    for path in tree.glob('*/*'):
        assert client.get(f'{path.parent.name}/{path.stem}', 'lq') == path.read_bytes()


def test_files_and_meta_info(tree, tmp_path):
    database = tmp_path / 'x.lmdb'
    write_lmdb(tree, database, progress=False)
    assert sorted(os.listdir(database)) == ['data.mdb', 'lock.mdb', 'meta_info.txt']
    assert (database / 'meta_info.txt').read_text().splitlines() == [
        *(f'alpha/0000000{i}.png (24,32,3) 1' for i in range(3)),
        *(f'jpeg/0000000{i}.jpg (24,32,3) 1' for i in range(2)),
    ]
    assert sorted(os.listdir(tmp_path)) == ['clips', 'x.lmdb']


@pytest.mark.parametrize('length', [1, 2000, 4081, 100_000])
def test_estimate_holds_the_data_and_is_not_wild(tmp_path, length):
    path = tmp_path / 'value'
    path.write_bytes(bytes(length))
    estimate = database_bytes([length] * 300)
    with lmdb.open(str(tmp_path / 'x'), map_size=estimate) as environment:
        put_files(environment, [(f'clip/{i:08d}', path) for i in range(300)])
        assert environment.info()['map_size'] == estimate, 'the map had to grow'
    assert estimate < 300 * (length + 2 * 4096) + (2 << 20)


def test_map_grows_when_full(tmp_path):
    path = tmp_path / 'value'
    path.write_bytes(bytes(50_000))
    with lmdb.open(str(tmp_path / 'x'), map_size=1 << 16) as environment:
        put_files(environment, [(f'clip/{i:08d}', path) for i in range(30)])
        assert environment.stat()['entries'] == 30


@pytest.mark.parametrize('stop', [KeyboardInterrupt, ValueError])
def test_interruption_leaves_nothing(tmp_path, stop):
    with pytest.raises(stop), whole_folder(tmp_path / 'x.lmdb') as folder:
        (folder / 'data.mdb').write_bytes(b'half')
        assert not (tmp_path / 'x.lmdb').exists()
        raise stop
    assert os.listdir(tmp_path) == []


def test_disk_that_refuses_to_go_on_leaves_nothing(make_tree, tmp_path):
    tree = make_tree('clips', {'a': 12}, size=(200, 200), suffix='.bmp')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(DBLRError, match='x.lmdb could not be written'):
            write_lmdb(tree, tmp_path / 'x.lmdb', progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ['clips']


def test_refusals(tree, tmp_path):
    (tmp_path / 'old.lmdb').mkdir()
    for name, words in [('x', 'end in .lmdb'), ('old.lmdb', 'exists'), ('absent/x.lmdb', 'absent is not a folder')]:
        with pytest.raises(DBLRError, match=words):
            write_lmdb(tree, tmp_path / name, progress=False)


def test_faults_in_the_source_stop_it(tree, tmp_path):
    (tree / 'alpha/00000001.png').write_bytes(b'')
    with pytest.raises(DBLRError, match='alpha/00000001.png is empty'):
        write_lmdb(tree, tmp_path / 'x.lmdb', progress=False)
    assert os.listdir(tmp_path) == ['clips']


def test_command_writes_and_sums_up(tree, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args(['lmdb', str(tree), str(tmp_path / 'x.lmdb')]))
    assert '2 clips, 5 frames' in capsys.readouterr().out
