"""Which basicsr, which classes, which operators, which machine."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from breakage import faults

from dblr_plugin.doctor import FAULT, NOTE, OK
from dblr_plugin.doctor.devices import find_backends
from dblr_plugin.doctor.machine import cores, find_compiler, find_space
from dblr_plugin.doctor.plugin import find_basicsr, find_operators, find_registered
from dblr_plugin.link import link


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``dblr link`` takes for a checkout; the working directory."""
    for name in ('archs', 'models'):
        (tmp_path / 'basicsr' / name).mkdir(parents=True)
    (tmp_path / 'basicsr' / 'train.py').touch()
    (tmp_path / 'VERSION').write_text('1.4.2\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestCheckout:
    def test_unlinked(self, checkout):
        imported, here = find_basicsr()
        assert imported.level == OK and 'basicsr is imported from' not in here.text
        assert here.level == NOTE and 'takes the basicsr named above' in here.text
        assert here.commands == (f'dblr link {checkout}',)

    def test_linked(self, checkout):
        link(checkout)
        assert [finding.level for finding in find_basicsr()] == [OK, OK]

    def test_linked_and_damaged(self, checkout):
        link(checkout)
        (checkout / 'basicsr/models/dblr_model.py').unlink()
        said = faults(find_basicsr())
        assert 'lacks basicsr/models/dblr_model.py' in said and f'dblr link --unlink {checkout} && dblr link' in said

    def test_manifest_that_cannot_be_read(self, checkout):
        (checkout / '.dblr_link.json').write_text('{')
        assert 'delete it and the files' in faults(find_basicsr())


def test_every_class_is_registered():
    found = list(find_registered())
    assert {finding.level for finding in found} == {OK}
    text = '\n'.join(finding.text for finding in found)
    for name in ('DBLRNet', 'DBLRDiscriminator', 'VideoDeblurDataset', 'MinimaxGANLoss', 'DBLRGANModel'):
        assert name in text


def test_operators_run(monkeypatch):
    assert {finding.level for finding in find_operators()} == {OK}
    monkeypatch.setattr('torchvision.ops.nms', lambda boxes, scores, threshold: scores.argsort())
    monkeypatch.setattr('torchvision.ops.deform_conv2d', lambda image, offset, weight, padding: image[:, :1])
    said = faults(find_operators())
    assert 'nms does not run on cpu: its result is off' in said and 'deform_conv2d does not run on cpu' in said
    assert 'install both at once' in said


def test_gloo_without_a_network(monkeypatch):
    assert next(finding.level for finding in find_backends()) == OK
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'nowhere0')
    said = faults(find_backends())
    assert 'gloo does not start' in said and 'export GLOO_SOCKET_IFNAME=lo' in said


@pytest.mark.parametrize('free, level', [(63 << 20, FAULT), (64 << 20, NOTE), (1 << 30, OK)])
def test_shared_memory(monkeypatch, free, level):
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(free if str(path) == '/dev/shm' else 1 << 40))
    disk, shared = find_space()
    assert (disk.level, shared.level) == (OK, level)
    assert (level == OK) == ('docker run --shm-size=8g ...' not in shared.commands)


def test_little_disk_is_a_note(monkeypatch):
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(1 << 30))
    assert next(find_space()).level == NOTE


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    (finding,) = find_compiler()
    assert finding.level == NOTE and 'apt-get install g++' in finding.commands


def test_cores_are_counted_as_the_system_allows():
    assert 1 <= cores() <= json.loads(Path('/proc/sys/kernel/threads-max').read_text())
