"""The log of a run: what is on screen and in the file; unwritable logs and TensorBoard files do not stop the run."""

import logging
import sys
from datetime import timedelta
from types import ModuleType, SimpleNamespace

import pytest
import torch
from basicsr import train as basicsr_train
from basicsr.models.base_model import BaseModel
from basicsr.utils import logger as basicsr_logger

from dblr_plugin.errors import DBLRError
from dblr_plugin.training import trainer


@pytest.fixture
def program(monkeypatch):
    """BasicSR's trainer with our parts, and its logger as in a new process."""
    monkeypatch.setattr(basicsr_logger, 'initialized_logger', {})
    for logger in map(logging.getLogger, ('basicsr', 'dblr_plugin')):
        monkeypatch.setattr(logger, 'handlers', [])
        monkeypatch.setattr(logger, 'level', logger.level)
    program = SimpleNamespace(train_pipeline=None, MessageLogger=None)
    trainer.patch_log(program)
    return program


def test_options_and_layers_are_only_in_the_log_file(program, tmp_path, capfd):
    logger = program.get_root_logger(log_file=str(tmp_path / 'run.log'))
    model = BaseModel({'num_gpu': 0, 'is_train': False})
    model.print_network(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
    logger.info('Validation V\n\t # psnr: 30.0')
    shown, written = capfd.readouterr().err, (tmp_path / 'run.log').read_text()
    assert 'run.log' in shown and 'with parameters: 6' in shown and '# psnr' in shown
    assert 'ReLU' in written and 'ReLU' not in shown
    assert set(shown.splitlines()) < set(written.splitlines())


def test_log_contains_messages_of_the_package(program, tmp_path, capfd):
    program.get_root_logger(log_file=str(tmp_path / 'run.log'))
    logging.getLogger('dblr_plugin.restore').info('Backend torch')
    assert 'INFO: Backend torch' in (tmp_path / 'run.log').read_text()
    assert capfd.readouterr().err.count('Backend torch') == 1


def test_unwritable_log_is_reported_once(program, capfd):
    logger = program.get_root_logger(log_file='/dev/full')
    logger.info('first')
    logger.info('second')
    shown = capfd.readouterr().err
    assert shown.count('/dev/full could not be written: the disk is full') == 1 and 'Traceback' not in shown
    assert 'first' in shown and 'second' in shown


def test_unwritable_tensorboard_is_reported_once(tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    writer = trainer.ForgivingWriter(str(tmp_path / 'file/run'))
    writer.add_scalar('loss', 1.0, 1)
    writer.close()
    assert caplog.text.count('file/run could not be written') == 1


def test_tensorboard_shows_one_curve_of_a_resumed_run(tmp_path):
    """The first run is killed at iteration 8, after its checkpoint of iteration 6."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for begin, iterations in ((None, (5, 6, 7, 8)), (7, (7, 8, 9))):
        writer = trainer.ForgivingWriter(str(tmp_path), begin)
        for iteration in iterations:
            writer.add_scalar('loss', float(iteration), iteration)
        writer.close()
    log = EventAccumulator(str(tmp_path))
    log.Reload()
    assert [(event.step, event.value) for event in log.Scalars('loss')] == [(i, i) for i in (5, 6, 7, 8, 9)]


@pytest.mark.parametrize('start', [0, 7], ids=['new', 'resumed'])
def test_remaining_time_is_that_of_the_iterations_left(program, start, caplog, monkeypatch):
    """Iterations take a minute; a run's first one, which BasicSR leaves out of the mean, an hour."""
    options = {'name': 'net', 'logger': {'print_freq': 1, 'use_tb_logger': False}, 'train': {'total_iter': 10}}
    now = 0.0
    monkeypatch.setattr(basicsr_logger.time, 'time', lambda: now)
    message = program.MessageLogger(options, start)
    for iteration in range(start + 1, 11):
        seconds = 3600.0 if iteration == 1 else 60.0
        now += seconds
        if iteration == 1:
            message.reset_start_time()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            message({'epoch': 0, 'iter': iteration, 'lrs': [1.0], 'time': seconds, 'data_time': 0.0})
        left = timedelta(seconds=seconds * (10 - iteration))
        assert f'eta: {left},' in caplog.text


@pytest.mark.parametrize('has_function', [True, False], ids=['older wandb', 'wandb 0.31'])
def test_wandb_starts_with_an_id_of_its_own(monkeypatch, has_function):
    """BasicSR calls ``wandb.util.generate_id``, which is no longer there."""
    calls: list[dict] = []
    util = SimpleNamespace(generate_id=lambda: 'given') if has_function else SimpleNamespace()
    wandb = SimpleNamespace(util=util, Error=OSError, init=lambda **arguments: calls.append(arguments))
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    start = _wandb_of_the_trainer()
    for _ in range(2):
        start({'name': 'net', 'logger': {'wandb': {'project': 'p', 'resume_id': None}}})
    assert [call['resume'] for call in calls] == ['never', 'never'] and all(call['sync_tensorboard'] for call in calls)
    assert {call['id'] for call in calls} == {'given'} if has_function else calls[0]['id'] != calls[1]['id']


def test_wandb_that_cannot_start_is_told_with_a_fix(monkeypatch):
    def init(**arguments):
        raise OSError('No API key configured. Use `wandb login` to log in.')

    wandb = SimpleNamespace(util=SimpleNamespace(), Error=OSError, init=init)
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    with pytest.raises(DBLRError, match=r'logger.wandb: No API key .* set WANDB_MODE=offline'):
        _wandb_of_the_trainer()({'name': 'net', 'logger': {'wandb': {'project': 'p'}}})


def _wandb_of_the_trainer():
    program = ModuleType('trainer')
    trainer.patch_trainer(program, {}, lambda dataset: None)
    return program.init_wandb_logger


def test_replaced_names_exist_in_basicsr():
    for name in ('get_root_logger', 'init_tb_logger', 'init_wandb_logger', 'MessageLogger'):
        assert hasattr(basicsr_train, name)
