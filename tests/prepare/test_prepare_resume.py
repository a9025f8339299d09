"""A preparation that was stopped completes with the same result when run again; foreign files are not touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import pytest
from processes import Run, held_by_another_process
from source_trees import Picture, link_frames, numbered

from dblr_plugin.data import open_store
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.data_sets import Plan, plan_dvd, plan_dvd_qualitative
from dblr_plugin.prepare.layout import prepare_layout
from dblr_plugin.prepare.tree import LMDB, TILES, DatabaseKind


@pytest.fixture
def frames() -> int:
    """Number of frames in each scene."""
    return 9


@pytest.fixture
def source(tmp_path: Path, picture: Picture, frames: int) -> Path:
    """The 22 scenes of DVD's qualitative subset."""
    for number in range(22):
        folder = tmp_path / f'source/scene{number}/input'
        link_frames(picture(suffix='.jpg'), folder, numbered(frames, digits=5, suffix='.jpg'))
    return tmp_path / 'source'


@pytest.fixture
def plan(source: Path) -> Plan:
    return plan_dvd_qualitative(source)


@pytest.mark.slow
@pytest.mark.parametrize('frames', [60])
@pytest.mark.parametrize('stop', [signal.SIGKILL, signal.SIGINT])
def test_stopped_preparation_is_resumed(source: Path, plan: Plan, tmp_path: Path, stop: signal.Signals) -> None:
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    prepare_layout(plan, whole, copy=True)
    run = Run('prepare', 'dvd-qualitative', source, stopped, '--copy', cwd=tmp_path)
    assert run.until(lambda: any(stopped.glob('test/lq/scene3/*.jpg'))), run.stderr
    os.kill(run.pid, stop)
    assert run.wait() == (-signal.SIGKILL if stop == signal.SIGKILL else 130), run.stderr
    assert stop == signal.SIGKILL or 'run the same command again' in run.stderr
    assert not (stopped / 'dataset.json').exists()
    assert 0 < len(list(stopped.rglob('*.jpg'))) < 22 * 60
    assert not prepare_layout(plan, stopped, copy=True).was_complete
    assert (stopped / 'dataset.json').read_bytes() == (whole / 'dataset.json').read_bytes()
    assert sorted(os.listdir(stopped)) == ['.lock', 'dataset.json', 'meta_info_test.txt', 'test']
    assert not list(stopped.rglob('*.partial'))


def test_second_run_into_the_same_folder_is_refused(plan: Plan, tmp_path: Path) -> None:
    """Two at once, as of a job array, would write the same files, and each remove the other's databases."""
    dst = tmp_path / 'tree'
    refusal = pytest.raises(DBLRError, match='tree is being written by another run; wait for it')
    with held_by_another_process(dst), refusal:
        prepare_layout(plan, dst)
    prepare_layout(plan, dst)
    (dst / '.lock').unlink()  # which this process holds until it ends
    with held_by_another_process(dst), refusal:
        prepare_layout(plan, dst, databases=[LMDB])
    assert not (dst / 'test_lq.lmdb').exists()


def test_complete_tree_is_only_verified(plan: Plan, source: Path, tmp_path: Path) -> None:
    first = prepare_layout(plan, tmp_path / 'tree', copy=True)
    shutil.rmtree(source)
    again = prepare_layout(plan, tmp_path / 'tree')
    assert again.was_complete and again.manifest == first.manifest


@pytest.mark.parametrize('harm', ['removed', 'cut short'])
def test_damaged_tree_is_repaired(plan: Plan, tmp_path: Path, harm: str) -> None:
    before = prepare_layout(plan, tmp_path / 'tree', copy=True).manifest
    frame = tmp_path / 'tree/test/lq/scene3/00007.jpg'
    frame.unlink() if harm == 'removed' else os.truncate(frame, 20)
    fixed = prepare_layout(plan, tmp_path / 'tree', copy=True)
    assert not fixed.was_complete and fixed.manifest == before


def test_copy_replaces_links_by_copies(plan: Plan, source: Path, tmp_path: Path) -> None:
    frame, theirs = tmp_path / 'tree/test/lq/scene3/00007.jpg', source / 'scene3/input/00007.jpg'
    assert prepare_layout(plan, tmp_path / 'tree').manifest['placed'] == 'linked'
    assert os.path.samefile(frame, theirs)
    assert prepare_layout(plan, tmp_path / 'tree', copy=True).manifest['placed'] == 'copied'
    assert not os.path.samefile(frame, theirs) and frame.read_bytes() == theirs.read_bytes()


def test_symbolic_links_where_hard_links_are_impossible(plan: Plan, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError('another disk')

    monkeypatch.setattr(os, 'link', refuse)
    prepare_layout(plan, tmp_path / 'tree')
    assert (tmp_path / 'tree/test/lq/scene3/00007.jpg').is_symlink()
    assert prepare_layout(plan, tmp_path / 'tree').was_complete
    assert len(VideoDeblurTestDataset({'dataroot_lq': str(tmp_path / 'tree/test/lq')})) == 22 * 9


def test_foreign_folders_are_refused_and_untouched(plan: Plan, source: Path, tmp_path: Path) -> None:
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/notes.txt').write_text('mine')
    with pytest.raises(DBLRError, match='neither empty nor a prepared data set'):
        prepare_layout(plan, tmp_path / 'mine')
    assert os.listdir(tmp_path / 'mine') == ['notes.txt']
    with pytest.raises(DBLRError, match='neither empty nor'):
        prepare_layout(plan, source)
    prepare_layout(plan, tmp_path / 'tree')
    with pytest.raises(DBLRError, match="holds 'dvd-qualitative', not 'dvd'"):
        prepare_layout(plan_dvd(source), tmp_path / 'tree')
    (tmp_path / 'tree/dataset.json').rename(tmp_path / 'tree/.unfinished.json')
    with pytest.raises(DBLRError, match="holds 'dvd-qualitative', not 'dvd'"):
        prepare_layout(plan_dvd(source), tmp_path / 'tree')


def test_foreign_frames_in_the_tree_are_refused(plan: Plan, source: Path, tmp_path: Path) -> None:
    prepare_layout(plan, tmp_path / 'tree')
    shutil.copytree(tmp_path / 'tree/test/lq/scene1', tmp_path / 'tree/test/lq/strange')
    with pytest.raises(DBLRError, match='9 frames besides those of dvd-qualitative, such as test/lq/strange/'):
        prepare_layout(plan, tmp_path / 'tree')


def test_full_disk_is_found_before_writing(plan: Plan, tmp_path: Path, monkeypatch) -> None:
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(10**12, 10**12, 10**5))
    for options in ({'copy': True}, {'databases': [LMDB]}):
        with pytest.raises(DBLRError, match='needs .* and the disk has 100.0 kB free; make room'):
            prepare_layout(plan, tmp_path / 'tree', **options)
        assert sorted(os.listdir(tmp_path / 'tree')) == ['.lock', '.unfinished.json']
    monkeypatch.undo()
    assert prepare_layout(plan, tmp_path / 'tree').manifest['files'] == 22 * 9


def test_databases_are_written_beside_the_tree(plan: Plan, tmp_path: Path) -> None:
    tree = tmp_path / 'tree'
    first = prepare_layout(plan, tree, databases=[LMDB])
    assert first.databases == [tree / 'test_lq.lmdb']
    assert open_store(tree / 'test_lq.lmdb').clips() == open_store(tree / 'test/lq').clips()
    written = (tree / 'test_lq.lmdb/data.mdb').stat().st_mtime_ns
    again = prepare_layout(plan, tree, databases=[LMDB])
    assert again.was_complete and (tree / 'test_lq.lmdb/data.mdb').stat().st_mtime_ns == written
    # a killed run left an incomplete database beside a complete tree
    shutil.rmtree(tree / 'test_lq.lmdb')
    (tree / '.test_lq.lmdb.partial-1').mkdir()
    prepare_layout(plan, tree, databases=[LMDB])
    assert sorted(os.listdir(tree)) == ['.lock', 'dataset.json', 'meta_info_test.txt', 'test', 'test_lq.lmdb']


def test_database_of_other_frames_is_refused(plan: Plan, tmp_path: Path) -> None:
    prepare_layout(plan, tmp_path / 'tree', databases=[LMDB])
    meta = tmp_path / 'tree/test_lq.lmdb/meta_info.txt'
    meta.write_text('\n'.join(meta.read_text().splitlines()[:-1]))
    with pytest.raises(DBLRError, match='test_lq.lmdb holds other frames than .*remove it'):
        prepare_layout(plan, tmp_path / 'tree', databases=[LMDB])


@pytest.mark.parametrize('kind', [LMDB, TILES], ids=['lmdb', 'tiles'])
def test_database_of_frames_that_were_replaced_is_refused(plan: Plan, tmp_path: Path, kind: DatabaseKind) -> None:
    tree = tmp_path / 'tree'
    prepare_layout(plan, tree, databases=[kind])
    frame = sorted((tree / 'test/lq').rglob('*.*'))[0].resolve()
    with frame.open('ab') as file:
        file.write(b'a repaired copy has another size')
    with pytest.raises(DBLRError, match='test_lq.*lmdb holds other frames than .*remove it'):
        prepare_layout(plan, tree, databases=[kind])


def test_manifest_is_plain_json(plan: Plan, source: Path, tmp_path: Path) -> None:
    content = prepare_layout(plan, tmp_path / 'tree').manifest
    assert content == json.loads((tmp_path / 'tree/dataset.json').read_text())
    assert content['source'] == str(source) and content['kind'] == 'dvd-qualitative' and content['version']
