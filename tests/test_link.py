"""The stock command, in real checkouts of BasicSR."""

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Run, dblr, run_python, torchrun

from dblr_plugin.errors import DBLRError
from dblr_plugin.link import link, option_files, unlink


def checksums(root: Path) -> dict[str, str]:
    files = (p for p in root.rglob('*') if p.is_file() and '__pycache__' not in p.parts)
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope='session')
def source_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BasicSR's source distribution: the one scripts/setup.sh kept, or downloaded by pip."""
    kept = sorted(Path(sys.prefix, 'sources').glob('basicsr-*.tar.gz'))
    if kept:
        return kept[-1]
    folder = tmp_path_factory.mktemp('sources')
    command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--no-binary', ':all:', '--no-build-isolation']
    command += ['--dest', str(folder), f'basicsr=={importlib.metadata.version("basicsr")}']
    subprocess.run(command, check=True, timeout=240)
    return next(folder.glob('basicsr-*.tar.gz'))


@pytest.fixture
def checkout(source_distribution: Path, tmp_path: Path) -> Path:
    """An untouched BasicSR, unpacked."""
    shutil.unpack_archive(source_distribution, tmp_path)
    return next(tmp_path.glob('basicsr-*'))


def uninstalled(checkout: Path) -> Path:
    """The same as git clones it: BasicSR writes version.py only when it is installed."""
    (checkout / 'basicsr/version.py').unlink()
    return checkout


def test_unlink_removes_exactly_what_link_wrote(checkout):
    before = checksums(uninstalled(checkout))
    written = link(checkout)
    assert set(checksums(checkout)) - set(before) == {
        '.dblr_link.json', *(p.relative_to(checkout).as_posix() for p in written),
    }  # fmt: skip
    assert {f'options/{p.name}' for p in option_files()} <= set(checksums(checkout))
    removed, kept = unlink(checkout)
    assert (sorted(removed), kept) == (sorted(written), [])
    assert checksums(checkout) == before
    assert not (checkout / 'options').exists() and not (checkout / 'basicsr/basicsr').exists()


@pytest.mark.parametrize('name', ['../victim', '/victim', 'basicsr/../../victim'])
def test_unlink_follows_no_name_out_of_the_checkout(checkout, name):
    """A checkout that comes from others brings its list of written files along."""
    victim = checkout.parent / 'victim'
    victim.write_text('mine')
    name = str(victim) if name[0] == '/' else name
    (checkout / '.dblr_link.json').write_text(json.dumps({name: hashlib.sha256(b'mine').hexdigest()}))
    with pytest.raises(DBLRError, match='is damaged'):
        unlink(checkout)
    assert victim.read_text() == 'mine'


def test_unlink_passes_by_folders(checkout):
    (checkout / '.dblr_link.json').write_text('{"basicsr": "x"}')
    assert unlink(checkout) == ([], [])


def test_unlink_keeps_what_the_user_changed(checkout):
    link(checkout)
    mine = checkout / 'options/train_DBLRGAN.yml'
    mine.write_text(mine.read_text() + '# mine\n')
    assert unlink(checkout)[1] == [mine]
    assert mine.exists()


def test_refusals(checkout, tmp_path):
    with pytest.raises(DBLRError, match='not a BasicSR checkout'):
        link(tmp_path)
    with pytest.raises(DBLRError, match='is not linked'):
        unlink(checkout)
    (checkout / 'options').mkdir()
    (checkout / 'options/train_DBLRGAN.yml').write_text('mine')
    with pytest.raises(DBLRError, match='has files of these names already: options/train_DBLRGAN.yml'):
        link(checkout)
    assert not (checkout / '.dblr_link.json').exists()
    (checkout / 'options/train_DBLRGAN.yml').unlink()
    link(checkout)
    with pytest.raises(DBLRError, match='linked already'):
        link(checkout)


def lay_out(root: Path, footage: Path, name: str = 'DVD') -> None:
    """The footage where the shipped option files look for a data set."""
    for ours, theirs in (('train', 'train'), ('val', 'test')):
        shutil.copytree(footage / ours, root / 'datasets' / name / theirs)


SHORT = [
    'datasets:train:gt_size=32', 'datasets:train:num_worker_per_gpu=1', 'datasets:train:batch_size_per_gpu=2',
    'train:total_iter=2', 'val:val_freq=2', 'network_g:num_block=1', 'network_d:num_fc=16', 'network_d:num_feat=8',
]  # fmt: skip


def ending(run: Path) -> dict[str, bytes]:
    """The networks and figures that a run ends with."""
    return {path.name: path.read_bytes() for path in [*run.glob('models/*_latest.pth'), run / 'metrics.json']}


@pytest.mark.slow
def test_stock_commands_do_what_the_plugins_do(checkout, footage, tmp_path):
    """DBLRGAN: a killed ``dblr train`` resumed by the stock command equals one at one go bit by bit; then tested."""
    link(checkout)
    lay_out(checkout, footage)
    small = [*SHORT, 'network_g:num_feat=16']
    result = dblr('train', '-opt', 'options/train_DBLRNet.yml', '--force_yml', *small[:-3], small[-1], cwd=checkout)
    assert result.returncode == 0, result.stderr
    whole = tmp_path / 'whole'
    for name in ('options', 'datasets', 'experiments'):
        shutil.copytree(checkout / name, whole / name)
    arguments = ['-opt', 'options/train_DBLRGAN.yml', '--auto_resume', '--force_yml', *small]
    arguments += ['train:total_iter=12', 'train:ema_decay=0.9', 'val:val_freq=5', 'logger:save_checkpoint_freq=3']
    result = dblr('train', *arguments, cwd=whole)
    assert result.returncode == 0 and 'Resuming training' not in result.stderr, result.stderr

    run = checkout / 'experiments/DBLRGAN'
    killed = Run('train', *arguments, cwd=checkout)
    assert killed.until((run / 'training_states/3.state').exists, every=2e-3), killed.stderr
    killed.kill()
    assert not (run / 'training_states/12.state').exists()
    resumed = run_python('basicsr/train.py', *arguments, cwd=checkout)
    assert resumed.returncode == 0 and 'Resuming training' in resumed.stderr, resumed.stderr
    assert 'Model [DBLRGANModel] is created' in resumed.stderr
    assert 'DVD-test (protocol basicsr)' in resumed.stderr
    assert len(ending(run)) == 3 and ending(run) == ending(whole / 'experiments/DBLRGAN')

    network = ['--force_yml', 'network_g:num_block=1', 'network_g:num_feat=16']
    told = ['-X', 'importtime']
    result = run_python(*told, 'basicsr/test.py', '-opt', 'options/test_DBLRGAN.yml', *network, cwd=checkout)
    assert result.returncode == 0, result.stderr
    imported = {line.rpartition('|')[2].strip() for line in result.stderr.splitlines()}
    assert 'basicsr.metrics.niqe' in imported and not imported & {'torch._dynamo', 'scipy.stats', 'scipy.special'}
    assert len(list((checkout / 'results').rglob('*.png'))) == 12


@pytest.mark.slow
def test_stock_command_under_torchrun(checkout, footage):
    """With an option file that has a ``base``."""
    link(uninstalled(checkout))
    lay_out(checkout, footage, 'REDS')
    arguments = ['--launcher', 'pytorch', '-opt', 'options/train_DBLRNet_REDS.yml', '--force_yml', *SHORT[:-2]]
    result = run_python(*torchrun(2, 'basicsr/train.py', *arguments), cwd=checkout)
    assert result.returncode == 0, result.stderr
    assert 'REDS-test (protocol basicsr)' in result.stderr
    assert 'base' not in (checkout / 'experiments/DBLRNet_REDS/train_DBLRNet_REDS.yml').read_text()


@pytest.mark.slow
def test_linked_checkout_without_the_plugin_still_works(checkout):
    """The shims of a plugin that was uninstalled must not break BasicSR."""
    link(checkout)
    code = (
        'import sys, importlib.util, torchvision.transforms.functional as F\n'
        'sys.modules["torchvision.transforms.functional_tensor"] = F\n'
        'find = importlib.util.find_spec\n'
        'importlib.util.find_spec = lambda name, *a: None if name == "dblr_plugin" else find(name, *a)\n'
        'sys.path.insert(0, "basicsr"); import basicsr; print(basicsr.__file__)'
    )
    result = subprocess.run([sys.executable, '-c', code], cwd=checkout, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(checkout / 'basicsr/__init__.py')
    assert 'not installed' in result.stderr
