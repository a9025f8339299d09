"""``dblr doctor`` as a program, in environments that are sound or broken for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from breakage import write_metadata, write_module
from processes import run_python

NO_TORCH = "raise OSError('libcudnn.so.9: cannot open shared object file: No such file or directory')"


def test_torch_that_does_not_load(doctor, broken):
    """All that needs torch is named and left out; the rest is checked."""
    write_module(broken, 'torch', NO_TORCH)
    result = doctor()
    assert result.returncode == 1
    assert 'cannot be imported: OSError: libcudnn.so.9' in result.stdout
    assert f'(taken from {broken}/torch, not from ' in result.stdout
    assert 'cure: rename or remove what is there, or take it off PYTHONPATH' in result.stdout
    assert 'torchvision: not checked, as there is a fault in torch' in result.stdout
    assert 'free in /dev/shm' in result.stdout
    assert result.stdout.splitlines()[-1].startswith('1 fault, ')


@pytest.mark.slow
def test_torchvision_of_another_torch(doctor, broken):
    write_module(broken, 'torchvision', "raise RuntimeError('operator torchvision::nms does not exist')")
    result = doctor()
    assert result.returncode == 1
    assert f'it is not built for torch {torch.__version__.split("+")[0]}' in result.stdout
    assert 'cure: install both at once, from the same place:' in result.stdout
    assert 'pip install --upgrade --force-reinstall' in result.stdout


@pytest.mark.slow
def test_torchvision_whose_requirement_is_not_met(doctor, broken):
    write_metadata(broken, 'torchvision', '0.99.0', 'Requires-Dist: torch==9.9.0')
    result = doctor()
    assert result.returncode == 1
    assert 'torchvision 0.99.0 is built for torch==9.9.0, found ' in result.stdout
    assert 'cure: install both at once' in result.stdout


@pytest.mark.slow
def test_basicsr_that_is_missing(doctor, broken):
    (broken / 'sitecustomize.py').write_text(
        'import sys\n'
        'class Block:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.split('.')[0] == 'basicsr':\n"
        "            raise ModuleNotFoundError(\"No module named 'basicsr'\", name='basicsr')\n"
        'sys.meta_path.insert(0, Block())\n'
    )
    result = doctor()
    assert result.returncode == 1
    assert "cannot be imported: ModuleNotFoundError: No module named 'basicsr'" in result.stdout
    assert "--no-build-isolation --no-deps --force-reinstall 'basicsr>=1.4.2'" in result.stdout
    assert 'registered classes: not checked' in result.stdout


# torch, which takes seconds to import, is kept out of these
@pytest.mark.parametrize(
    'package, version, lines, words',
    [
        ('lmdb', '0.9', (), ['lmdb 0.9, and >=1.4 is needed', "--no-deps 'lmdb>=1.4'"]),
        (
            'opencv-python-headless',
            '4.9.0',
            (),
            ['2 OpenCV packages overwrite each other: opencv-python ', 'pip uninstall -y opencv-python'],
        ),
        (
            'dblr_plugin',
            '0.1.0',
            ('Requires-Python: >=3.98',),
            ['and >=3.98 is needed', 'make an environment with Python 3.11 or 3.12', 'python3.12 -m venv .venv'],
        ),
    ],
)
def test_versions(doctor, broken, package, version, lines, words):
    write_module(broken, 'torch', NO_TORCH)
    write_metadata(broken, package, version, *lines)
    result = doctor()
    assert result.returncode == 1
    for text in words:
        assert text in result.stdout


@pytest.mark.parametrize(
    'module, code, words',
    [
        (
            'cv2',
            "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
            ['install the system libraries', 'apt-get install libgl1', 'pip install opencv-python-headless'],
        ),
        ('cv2', 'import os; os.abort()', ['opencv-python: ended the process (SIGABRT)', 'install anew']),
        (
            'lmdb',
            "raise ImportError('numpy.dtype size changed, may indicate binary incompatibility')",
            ['lmdb was built for another NumPy', '--no-deps lmdb'],
        ),
        ('av', "raise ImportError('libx264.so')", ['av cannot be imported', '--force-reinstall av']),
    ],
)
def test_packages(doctor, broken, module, code, words):
    write_module(broken, 'torch', NO_TORCH)
    write_module(broken, module, code)
    result = doctor()
    assert result.returncode == 1
    for text in words:
        assert text in result.stdout


def test_package_that_lacks_another(doctor, broken):
    write_module(broken, 'torch', NO_TORCH)
    write_module(broken, 'tqdm', 'import no_such_package')
    write_metadata(broken, 'tqdm', '4.99')  # so that this is where pip installed it
    assert 'cure: tqdm needs another package:\n' in (said := doctor().stdout) and 'pip install no_such_package' in said


def test_the_installed_command_starts_too(broken, tmp_path):
    write_module(broken, 'torch', NO_TORCH)
    command = Path(sys.executable).with_name('dblr')
    if not command.exists():
        pytest.skip('the plugin is not installed beside this Python')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(broken), os.environ.get('PYTHONPATH', '')])}
    result = subprocess.run([command, 'doctor'], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, '')
    assert 'libcudnn' in result.stdout


@pytest.mark.parametrize('arguments', [('-c', 'import dblr_plugin'), ('-m', 'dblr_plugin', 'train', 'doctor')])
def test_all_else_names_the_doctor(broken, tmp_path, arguments):
    write_module(broken, 'torchvision', "raise RuntimeError('operator torchvision::nms does not exist')")
    result = run_python(
        *arguments, cwd=tmp_path, PYTHONPATH=str(broken) + os.pathsep + os.environ.get('PYTHONPATH', '')
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        'ImportError: dblr_plugin cannot be imported (RuntimeError: operator torchvision::nms does not exist); '
        "run 'dblr doctor', which finds the cause and names the cure"
    )


def test_help_tells_what_it_does(doctor):
    result = doctor('--help')
    assert result.returncode == 0 and '-opt FILE' in result.stdout
