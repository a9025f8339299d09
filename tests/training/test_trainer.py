"""The parts of BasicSR's trainer that are replaced."""

from types import ModuleType

import pytest
from processes import held_by_another_process

from dblr_plugin.errors import DBLRError
from dblr_plugin.training.trainer import patch_test, patch_trainer


def test_a_run_does_not_take_the_folder_of_another(train_options, tmp_path):
    """BasicSR would archive it, and the other run would then save its checkpoints among the new one's."""
    folder = tmp_path / 'net'
    opt = train_options | {'rank': 0, 'auto_resume': False, 'is_train': True}
    opt['path'] = {'experiments_root': str(folder), 'models': str(folder / 'models'), 'resume_state': None}
    trainer = ModuleType('trainer')
    patch_trainer(trainer, opt, lambda dataset: None)
    refusal = 'net is being written by another run; wait for it, or give another name'
    with held_by_another_process(folder), pytest.raises(DBLRError, match=refusal):
        trainer.load_resume_state(opt)
    assert trainer.load_resume_state(opt) is None  # the other one has ended
    trainer.make_exp_dirs(opt)
    assert (folder / '.lock').exists() and len(list(tmp_path.glob('net_archived_*'))) == 1


def test_weights_in_the_folder_that_is_archived_are_refused(tmp_path):
    folder = tmp_path / 'net'
    opt = {'rank': 0, 'path': {'experiments_root': str(folder), 'pretrain_network_g': None}}
    opt['path']['pretrain_network_d'] = str(folder / 'models/net_d_latest.pth')
    folder.mkdir()
    trainer = ModuleType('trainer')
    patch_trainer(trainer, opt, lambda dataset: None)
    with pytest.raises(DBLRError, match=r'path.pretrain_network_d: .* is of an earlier run with this name'):
        trainer.make_exp_dirs(opt)
    assert [path.name for path in tmp_path.iterdir()] == ['net']


def test_a_test_does_not_take_the_folder_of_another(tmp_path):
    """The frames of both would end up in one folder, whichever network restored them."""
    folder = tmp_path / 'net'
    opt = {'rank': 0, 'is_train': False, 'path': {'results_root': str(folder)}}
    test = ModuleType('test')
    patch_test(test)
    with held_by_another_process(folder), pytest.raises(DBLRError, match='net is being written by another run'):
        test.make_exp_dirs(opt)
    test.make_exp_dirs(opt)
    assert len(list(tmp_path.glob('net_archived_*'))) == 1
