"""What processes need from the machine."""

import multiprocessing
import tempfile
from multiprocessing.connection import Listener

import dblr_plugin


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
