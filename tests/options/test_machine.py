"""Options that this machine cannot run are refused."""

import sys

import pytest
from changes import changed

from dblr_plugin.errors import DBLRError
from dblr_plugin.hooks import check_options


@pytest.fixture
def machine(gan_options, monkeypatch):
    """Returns options as BasicSR returns them, on a simulated machine with some GPUs and at most one compiler."""

    def with_gpus(count: int, compiler: str | None = None) -> dict:
        monkeypatch.setattr('torch.cuda.device_count', lambda: count)
        monkeypatch.setattr('shutil.which', lambda name: compiler and name == compiler)
        return gan_options | {'num_gpu': count, 'auto_resume': False, 'dist': False, 'is_train': True}

    monkeypatch.delenv('CXX', raising=False)
    return with_gpus


@pytest.mark.parametrize(('trail', 'value', 'message'), [
    ('num_gpu', 99, 'num_gpu is 99, but 0 CUDA devices are visible; set num_gpu: auto'),
    ('datasets.train.prefetch_mode', 'cuda', 'needs a GPU'),
    ('train.compile', True, 'needs a C\\+\\+ compiler on the CPU; install g\\+\\+'),
    ('datasets.val.dataroot_gt', 'nowhere', 'datasets.val.dataroot_gt: nowhere does not exist'),
    ('path.pretrain_network_g', 'none.pth', 'path.pretrain_network_g: none.pth does not exist'),
])  # fmt: skip
def test_options_that_this_machine_cannot_fulfil_are_refused(machine, trail, value, message):
    opt = machine(0)
    check_options(opt)
    with pytest.raises(DBLRError, match=message):
        check_options(changed(opt, trail, value))


def test_wandb_that_is_not_installed(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(DBLRError, match='logger.wandb needs: pip install wandb'):
        check_options(changed(machine(0), 'logger.wandb', {'project': 'p'}))


def test_all_missing_paths_are_reported_at_once(machine):
    opt = changed(changed(machine(0), 'datasets.val.dataroot_gt', 'nowhere'), 'path.pretrain_network_g', 'none.pth')
    with pytest.raises(DBLRError, match=r'(?s)2 faults.*nowhere does not exist .*dblr prepare.*none\.pth does not'):
        check_options(opt)


@pytest.mark.parametrize('compiler', ['g++', 'clang++', 'c++', '/opt/cxx'])
def test_any_compiler_is_accepted(machine, monkeypatch, compiler):
    monkeypatch.setenv('CXX', '/opt/cxx')
    check_options(changed(machine(0, compiler), 'train.compile', True))


def test_one_process_uses_one_gpu_and_reports_how_to_use_all(machine, caplog):
    opt = machine(4)
    check_options(opt)
    assert opt['num_gpu'] == 1
    assert 'torchrun --nproc_per_node=4 -m dblr_plugin.train -opt FILE' in caplog.text


def test_torchrun_uses_all_gpus(machine, caplog):
    opt = machine(4) | {'dist': True}
    check_options(opt)
    assert opt['num_gpu'] == 4 and not caplog.text


def test_name_that_changes_other_options_is_reported(machine, caplog):
    check_options(machine(0))
    assert not caplog.text
    check_options(machine(0) | {'name': 'deblur_debugged'})
    assert "The name has 'debug' in it: BasicSR prints each iteration" in caplog.text
