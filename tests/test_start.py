"""Help and wrong arguments come at once: torch, BasicSR and OpenCV are imported when the arguments are right."""

import importlib
import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import run_python

import dblr_plugin
from dblr_plugin.commands import _COMMANDS, main
from dblr_plugin.errors import DBLRError

_SLOW = {'torch', 'basicsr', 'cv2', 'numpy'}

_CONSOLE_SCRIPT = (
    'import sys\nfrom dblr_plugin.commands import main\nif __name__ == "__main__":\n    sys.exit(main())\n'
)


@pytest.mark.parametrize('start', [['-m', 'dblr_plugin'], ['dblr']], ids=['module', 'console script'])
def test_the_command_is_known_however_it_is_started(start, tmp_path):
    (tmp_path / 'dblr').write_text(_CONSOLE_SCRIPT)
    result = run_python('-X', 'importtime', *start, '--help', cwd=tmp_path)
    imported = {line.rpartition('|')[2].strip() for line in result.stderr.splitlines()}
    assert result.returncode == 0 and 'usage: dblr' in result.stdout
    assert 'dblr_plugin.commands' in imported and not imported & _SLOW


def test_no_help_and_no_fault_in_arguments_needs_them(tmp_path):
    layouts = ('dvd', 'gopro', 'reds', 'bsd', 'kitti', 'video', 'motion', 'lmdb')
    pages = [[name] for name in _COMMANDS]
    pages += [['prepare', layout] for layout in layouts]
    faults = ['', 'nonsense', 'train', 'deblur -i', 'prepare gopro a b --blur x', 'test -opt a.yml --launcher x']
    misspelt = {
        'deblur -i x -o y --wieghts z': '--weights', 'deblur --inptu x -o y': '--input', 'train --opt x': '-opt',
        'prepare gopro a b --blurr=blur': '--blur', 'prepare lmdb a b --tilse': '--tiles',
    }  # fmt: skip
    faults += misspelt
    lines = [[*page, '--help'] for page in pages] + [fault.split() for fault in faults]
    code = f"""
import sys
sys.orig_argv = ['python', '-m', 'dblr_plugin']
from dblr_plugin.commands import main
for arguments in {lines}:
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == (0 if '--help' in arguments else 2), arguments
    else:
        raise AssertionError(f'{{arguments}} did not end')
    loaded = sys.modules.keys() & {_SLOW}
    assert not loaded, (arguments, loaded)
"""
    result = run_python('-c', code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count('usage: dblr') == len(faults)
    assert [line.rpartition('; did you mean ')[2] for line in result.stderr.splitlines() if 'did you mean' in line] == [
        f"'{option}'?" for option in misspelt.values()
    ]
    assert 'dvd-official' in result.stdout, 'the protocols are listed'


def test_what_needs_no_network_waits_for_neither_torch_nor_basicsr(footage, tmp_path):
    (tmp_path / 'own.pth').touch()
    (tmp_path / 'damaged.yml').write_text('name: [x\n')
    (tmp_path / 'based.yml').write_text('base: none.yml\n')
    lines = {
        'weights': '',
        f'prepare lmdb {footage}/val/lq {tmp_path}/val.lmdb --tiles': '',
        f'prepare video {footage}/train/gt {tmp_path}/own --average 3 --stride 1 --test-share 0': '',
        'prepare dvd nowhere own': 'nowhere does not exist',
        'train -opt none.yml': 'none.yml: no such option file',
        'test -opt own': 'own: cannot be read as text',
        'benchmark -opt damaged.yml': 'damaged.yml:2: not valid YAML: while parsing a flow sequence, expected',
        'train -opt based.yml --auto_resume': 'based.yml:1: base: there is no file none.yml',
        'deblur -i nowhere.mp4 -o y.mp4': 'nowhere.mp4 does not exist',
        f'deblur -i {footage}/val/lq/v -o y --weights lihgt': "did you mean 'light'?",
        f'deblur -i {footage}/val/lq/v -o y --weights no.pth': 'no.pth: no such checkpoint',
        f'deblur -i {footage}/val/lq/v -o y -opt no.yml': 'no.yml',
        'demo-page --weights no.pth': 'no.pth: no such checkpoint',
        'export --weights no.pth -o y.onnx': 'no.pth: no such checkpoint',
        'export -o y.tar': "'.tar' cannot be written",
        'export -o y.onnx --precision int8': 'needs --calibrate',
        f'export -o {tmp_path}/own.pth': '.pth exists; give another output, or --overwrite',
        f'deblur -i {footage}/val/lq/v -o {footage}/val/lq/v': 'is an input',
    }
    code = f"""
import sys
sys.orig_argv = ['python', '-m', 'dblr_plugin']
from dblr_plugin.commands import main
for line, fault in {lines}.items():
    try:
        main(line.split())
        assert not fault, line
    except Exception as error:
        assert fault and fault in str(error), (line, error)
    assert not sys.modules.keys() & {{'torch', 'basicsr'}}, line
"""
    result = run_python('-c', code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize('program', ['dblr_plugin evaluate x y', 'dblr_plugin.train -opt x', 'dblr_plugin.launch -m x'])
def test_ctrl_c_among_the_imports_is_one_line(program, tmp_path):
    process = subprocess.Popen(
        [sys.executable, '-m', *program.split()], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    maps = Path(f'/proc/{process.pid}/maps')
    while 'libtorch_cpu' not in maps.read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == 'dblr: error: interrupted\n'
    assert process.returncode == -signal.SIGINT  # which a shell calls 130


def test_a_current_folder_that_was_removed_is_named(tmp_path, monkeypatch):
    """Otherwise MKL ends the process, as it cannot load a library that is there."""
    monkeypatch.setattr(sys, 'excepthook', sys.excepthook)
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(DBLRError, match='the current folder has been removed; change to one that exists'):
        main(['weights'])


def test_lines_of_the_overview_are_those_of_the_commands():
    for name, text in _COMMANDS.items():
        module = importlib.import_module(f'dblr_plugin.commands.{name.replace("-", "_")}')
        assert module.__doc__.strip().splitlines()[0] == text


def test_the_package_hands_out_what_scripts_need():
    from dblr_plugin.restore.loading import load_network
    from dblr_plugin.restore.video_restorer import VideoRestorer

    assert dblr_plugin.load_network is load_network and dblr_plugin.VideoRestorer is VideoRestorer
    assert set(dblr_plugin.__all__) <= set(dir(dblr_plugin)), 'completion offers them'
    with pytest.raises(AttributeError, match='nonsense'):
        _ = dblr_plugin.nonsense
    assert 'dblr_plugin.models' in sys.modules, 'importing the package registers'


def test_windows_is_told_of_wsl(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'win32')
    spec = importlib.util.spec_from_file_location('on_windows', dblr_plugin.__file__)
    with pytest.raises(ImportError, match='needs Linux; on Windows, .* WSL'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
