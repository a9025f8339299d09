"""``dblr doctor``: every fault is found and comes with what to do, in environments that are broken for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from processes import dblr, run_python, write_options

from dblr_plugin import doctor
from dblr_plugin.data.lmdb_writer import write_lmdb, write_tiles
from dblr_plugin.doctor import FAULT, NOTE, OK, Finding
from dblr_plugin.errors import DBLRError
from dblr_plugin.link import link

NO_TORCH = "raise OSError('libcudnn.so.9: cannot open shared object file: No such file or directory')"
Program = Callable[..., subprocess.CompletedProcess]


def faults(findings: Iterable[Finding]) -> str:
    """Texts, fixes and commands of the faults among findings."""
    return '\n'.join('\n'.join((f.text, f.fix, *f.commands)) for f in findings if f.level == FAULT)


@pytest.mark.slow
class TestEnvironments:
    """What stands first on PYTHONPATH is what a program imports; whatever is wrong, the user sees no traceback."""

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Path:
        """A folder in which the program finds modules and packages before all others."""
        (tmp_path / 'broken').mkdir()
        return tmp_path / 'broken'

    @pytest.fixture
    def program(self, tmp_path: Path, broken: Path) -> Program:
        def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
            path = os.pathsep.join([str(broken), os.environ.get('PYTHONPATH', '')])
            return run_python(*arguments, cwd=tmp_path, PYTHONPATH=path, **environment)

        return run

    def module(self, folder: Path, name: str, code: str) -> None:
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text(code)

    def metadata(self, folder: Path, name: str, version: str, *lines: str) -> None:
        info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        text = '\n'.join(['Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}', *lines])
        (info / 'METADATA').write_text(text + '\n')

    def test_several_at_once(self, program, broken):
        """A torch that does not load is named once, not again for what imports it; all other packages are checked."""
        self.module(broken, 'torch', NO_TORCH)
        self.module(broken, 'cv2', 'import os; os.abort()')
        self.module(broken, 'tqdm', 'import no_such_package')
        self.module(
            broken, 'lmdb', "raise ImportError('numpy.dtype size changed, may indicate binary incompatibility')"
        )
        self.metadata(broken, 'opencv-python-headless', '4.9.0')
        self.metadata(broken, 'pillow', '0.9')
        self.metadata(broken, 'torchvision', '0.99.0', 'Requires-Dist: torch==9.9.0')
        installed = Path(sys.executable).with_name('dblr')
        result = program(*([installed] if installed.exists() else ['-m', 'dblr_plugin']), 'doctor')
        assert (result.returncode, result.stderr) == (1, '')
        for words in (
            'OpenCV packages overwrite each other: opencv-python, opencv-python-headless',
            f'(taken from {broken}/torch) cannot be imported: OSError: libcudnn.so.9',
            'torchvision cannot be imported either',
            'importing it kills the process (SIGABRT)',
            'rename or remove it, or remove it from PYTHONPATH',
            'lmdb was built for another NumPy',
            'has requirement pillow>=10, but you have pillow 0.9',
            'has requirement torch==9.9.0',
            'GiB free in /dev/shm',
            'not checked, as there is a fault in Packages',
        ):
            assert words in result.stdout, result.stdout

    def test_all_else_names_the_doctor(self, program, broken):
        self.module(broken, 'torchvision', "raise RuntimeError('operator torchvision::nms does not exist')")
        result = program('-m', 'dblr_plugin', 'evaluate', 'doctor')
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1] == (
            'ImportError: dblr_plugin cannot be imported (RuntimeError: operator torchvision::nms does not exist); '
            "run 'dblr doctor', which finds the cause and names the fix"
        )


@pytest.mark.parametrize(
    'problem, words',
    [
        (
            'ImportError: libGL.so.1: cannot open shared object file',
            ['apt-get install libgl1', 'opencv-python-headless'],
        ),
        ('RuntimeError: operator torchvision::nms does not exist', ['it is not built for torch', 'torchvision>=']),
        ("ModuleNotFoundError: No module named 'six'", ['opencv-python needs another package', 'pip install six']),
        ("ModuleNotFoundError: No module named 'cv2'", ['install it', "'opencv-python>=4.8'"]),
    ],
)
def test_fixes_of_packages(problem, words):
    name = 'torchvision' if 'torchvision' in problem else 'opencv-python'
    fix, commands = doctor._import_fix(name, problem)
    assert all(word in '\n'.join((fix, *commands)) for word in words)
    assert '--no-build-isolation --no-deps' in doctor._reinstall('basicsr')


def test_every_extra_is_named_with_what_it_is_for():
    lines = [finding.text for finding in doctor._extras()]
    for named in ('video: av ', 'openvino: openvino ', 'int8: nncf ', 'mmengine: mmengine ', 'page: gradio '):
        assert any(line.startswith(named) for line in lines), lines


def test_plugin_that_is_not_installed_is_told(monkeypatch):
    """Its folder may be on PYTHONPATH; that ended the check of packages, with "report it"."""

    def version(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, 'version', version)
    (found,) = doctor._extras()
    assert found.level == NOTE and 'dblr_plugin is not installed, but taken from ' in found.text
    assert found.commands[0].endswith('-e .')


class TestExamine:
    def test_what_a_check_raises_is_a_fault(self):
        def ours() -> Iterator[Finding]:
            yield Finding(OK, 'begins well')
            raise DBLRError('x.png is empty; replace it')

        def foreign() -> Iterator[Finding]:
            raise RuntimeError('first line\nsecond line')
            yield

        assert [*doctor._guarded(ours)] == [Finding(OK, 'begins well'), Finding(FAULT, 'x.png is empty', 'replace it')]
        assert [f.text for f in doctor._guarded(foreign)] == ['RuntimeError: first line']


class TestCheckout:
    @pytest.fixture
    def checkout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What ``dblr link`` takes for a checkout; the working directory."""
        for name in ('archs', 'models'):
            (tmp_path / 'basicsr' / name).mkdir(parents=True)
        (tmp_path / 'basicsr' / 'train.py').touch()
        (tmp_path / 'VERSION').write_text('1.4.2\n')
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_unlinked_linked_damaged(self, checkout):
        imported, here = doctor._which_basicsr()
        assert imported.level == OK and 'basicsr is imported from' not in here.text
        assert here.level == NOTE and here.commands[-1] == f'dblr link {checkout}'
        link(checkout)
        assert [finding.level for finding in doctor._which_basicsr()] == [OK, OK]
        (checkout / 'basicsr/models/dblr_model.py').unlink()
        assert 'basicsr/models/dblr_model.py' in [*doctor._which_basicsr()][1].text
        (checkout / '.dblr_link.json').write_text('{')
        assert 'is damaged' in faults(doctor._guarded(doctor._which_basicsr))


def test_operators_work_here():
    assert {finding.level for finding in doctor._operators()} == {OK}


def test_gloo_without_a_network(monkeypatch):
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'nowhere0')
    said = faults(doctor._backends())
    assert 'gloo does not start' in said and 'export GLOO_SOCKET_IFNAME=lo' in said


class TestOptionFile:
    @pytest.fixture
    def own_options(self, train_options: dict, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
        """Training on a copy of the footage: tiles, LMDB and folders; paths from the working directory."""
        shutil.copytree(footage, tmp_path / 'footage')
        monkeypatch.chdir(tmp_path)
        write_tiles('footage/train/lq', 'footage/train_lq.lmdb', progress=False)
        write_lmdb('footage/train/gt', 'footage/train_gt.lmdb', progress=False)
        roots = ('footage/train_lq.lmdb', 'footage/train_gt.lmdb'), ('footage/val/lq', 'footage/val/gt')
        for phase, (lq, gt) in zip(('train', 'val'), roots, strict=True):
            train_options['datasets'][phase] |= {'dataroot_lq': lq, 'dataroot_gt': gt}
        return train_options

    def file(self, options: dict) -> str:
        return str(write_options(Path('options.yml'), options))

    def looks(self, path: str) -> list[Finding]:
        looks = doctor._options, doctor._data, doctor._weights
        return [finding for look in looks for finding in doctor._guarded(lambda look=look: look(path))]

    def test_all_is_well(self, own_options):
        torch.save({'params': {'x': torch.zeros(2)}}, 'net.pth')
        own_options['path']['pretrain_network_g'] = 'net.pth'
        found = self.looks(self.file(own_options))
        assert {finding.level for finding in found} == {OK}
        text = '\n'.join(finding.text for finding in found)
        assert 'train: 8 samples; every frame is in its place' in text and 'net.pth can be read' in text

    def test_all_faults_at_once(self, own_options):
        own_options['num_gpu'] = 99
        own_options['logger']['print_frequency'] = own_options['logger'].pop('print_freq')
        own_options['datasets']['val_2'] = {**own_options['datasets']['val'], 'dataroot_lq': 'nowhere'}
        own_options['datasets']['val_3'] = {'name': 'R', 'type': 'REDSDataset', 'dataroot_lq': 'footage/val/lq'}
        Path('footage/train_gt.lmdb/data.mdb').write_bytes(b'')
        frame = Path('footage/val/gt/w/00000004.png')
        frame.write_bytes(frame.read_bytes()[:-200])
        Path('net.pth').write_bytes(b'PK\3\4' + bytes(100))
        own_options['path'] |= {'pretrain_network_g': 'net.pth', 'pretrain_network_d': 'x.pth'}
        found = self.looks(self.file(own_options))
        said = faults(found)
        for words in (
            'set num_gpu: auto',
            'print_frequency',
            'footage/train_gt.lmdb',
            f'val: {frame} is truncated\nreplace it',
            'val_2: nowhere does not exist',
            'pretrain_network_g: net.pth: damaged',
            'pretrain_network_d: x.pth: no such checkpoint',
        ):
            assert words in said, said
        assert 'val_3: REDSDataset is not a data set of the plugin' in [f.text for f in found if f.level == NOTE]

    @pytest.mark.parametrize('text', ['name: [', 'name: x', '- name', ''])
    def test_unusable(self, tmp_path, text):
        (tmp_path / 'x.yml').write_text(text)
        assert 'x.yml' in faults(self.looks(str(tmp_path / 'x.yml')))
        assert 'no such option file' in faults(self.looks('nowhere.yml'))

    @pytest.mark.slow
    def test_the_program_finds_nothing_wrong(self, own_options):
        path = self.file(own_options)
        result = dblr('doctor', '-opt', path, cwd=Path.cwd())
        assert (result.returncode, result.stderr) == (0, ''), result.stdout
        for words in (
            f'torch {torch.__version__.split("+")[0]}',
            'model: DBLRGANModel, VideoDeblurModel',
            'gloo starts',
        ):
            assert words in result.stdout
        assert '\n0 faults, ' in result.stdout
