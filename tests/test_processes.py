"""What processes need from the machine."""

import multiprocessing
import os
import tempfile
from multiprocessing.connection import Listener

import dblr_plugin
from dblr_plugin import processes
from dblr_plugin.processes import usable_cores


def test_a_long_folder_for_temporary_files_leaves_room_for_sockets(tmp_path, monkeypatch):
    """As on clusters, whose ``TMPDIR`` names user, node and job: sockets have at most 107 bytes."""
    folder = tmp_path / ('long' * 20)
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    monkeypatch.delitem(multiprocessing.current_process()._config, 'tempdir', raising=False)
    dblr_plugin.register()
    with Listener(family='AF_UNIX') as listener:
        assert not str(listener.address).startswith(str(folder))
    assert tempfile.gettempdir() == str(folder)


def test_cores_are_those_of_the_job(monkeypatch, tmp_path):
    """A cluster's job or a container may use a few of the machine's; macOS cannot tell."""
    limit = tmp_path / 'cpu.max'
    monkeypatch.setattr(processes, '_CPU_LIMIT', limit)
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    for text, cores in ('150000 100000', 1), ('50000 100000', 1), ('max 100000', len(allowed)):
        limit.write_text(text + '\n')
        assert usable_cores() == cores
    monkeypatch.delattr(os, 'sched_getaffinity')
    assert usable_cores() == os.cpu_count()
