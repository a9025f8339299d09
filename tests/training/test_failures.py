"""Explanations of torch's errors. Each error is really caused, as torch may change its messages."""

import datetime
import errno
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
import torch.distributed as dist
from processes import files_of_at_most, free_port, warm
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dblr_plugin.console import explain


def error_of(function, *args, **kwargs) -> BaseException:
    with pytest.raises(BaseException) as caught:
        function(*args, **kwargs)
    return caught.value


class Faulty(Dataset):
    """Calls ``fault`` in a worker of the data loader."""

    def __init__(self, fault) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        self.fault()
        return index


def load(fault, limit: float) -> str | None:
    """Returns the explanation of the error that ``fault`` causes in a forked worker."""
    loader = DataLoader(Faulty(fault), num_workers=1, timeout=limit, multiprocessing_context='fork')
    return explain(error_of(next, iter(loader)))


def allocate_too_much() -> None:
    torch.empty(2**50)


def hang() -> None:
    time.sleep(60)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_shared_memory() -> None:
    os.kill(os.getpid(), signal.SIGBUS)  # the system sends this when shared memory is full


def assert_meaning(error: BaseException, meaning: str) -> None:
    assert re.match(meaning, explain(error) or ''), error


@pytest.mark.slow
@pytest.mark.parametrize(('fault', 'meaning'), [
    (hang, 'no batch came for 1 s: .* raise datasets.train.timeout'),
    (be_killed, r'a worker of the data loader \(process \d+\) was killed'),
    (run_out_of_shared_memory, '.* shared memory .*--shm-size'),
    (allocate_too_much, 'the memory is full: .*in training, lower'),
])  # fmt: skip
def test_data_loader_errors_are_explained(fault, meaning):
    with ProcessPoolExecutor(1, mp_context=warm()) as pool:
        told = pool.submit(load, fault, limit=1 if fault is hang else 60).result()
    assert re.match(meaning, told)


def test_out_of_memory_is_explained():
    assert_meaning(error_of(allocate_too_much), 'the memory is full: .*in training, lower')
    assert_meaning(
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate'),
        "the GPU's memory is full: .*in training, lower",
    )


def test_batchnorm_of_a_single_value_is_explained():
    assert_meaning(
        error_of(nn.BatchNorm2d(3), torch.rand(1, 3, 1, 1)), 'BatchNorm has a .* datasets.train.batch_size_per_gpu to 2'
    )


def test_other_errors_keep_their_traceback():
    assert explain(error_of(torch.matmul, torch.ones(2, 3), torch.ones(2, 3))) is None
    assert explain(BrokenPipeError(32, 'Broken pipe')) is None
    assert explain(KeyboardInterrupt()) == 'interrupted'


def test_weights_that_cannot_be_downloaded_are_explained(tmp_path):
    """Those of a perceptual loss, on a machine without a network."""
    error = error_of(torch.hub.load_state_dict_from_url, 'http://nowhere.invalid/vgg19.pth', str(tmp_path))
    said = explain(error) or ''
    assert re.fullmatch(r'a file cannot be downloaded \(.+\); the line "Downloading" above says where to put it', said)


def test_a_limit_of_threads_is_explained():
    before = threading.stack_size(1 << 47)  # no system has room for it
    try:
        error = error_of(threading.Thread(target=print).start)
    finally:
        threading.stack_size(before)
    assert_meaning(error, r'the system lets this program start no more threads: .*ulimit -u')
    of_ffmpeg = BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable', '')
    assert explain(of_ffmpeg) == explain(error)


def test_shared_memory_that_is_not_writable_is_explained():
    """Not as a file of the run: an error of a semaphore names no file."""
    with files_of_at_most(0):
        error = error_of(multiprocessing.get_context('fork').Semaphore)
    assert_meaning(error, r'processes cannot share memory here \(File too large\): make /dev/shm writable')


def join(rank: int, port: int, seconds: float = 1) -> None:
    where = f'tcp://127.0.0.1:{port}'
    dist.init_process_group('gloo', where, datetime.timedelta(seconds=seconds), rank=rank, world_size=2)


@pytest.mark.slow
def test_connection_errors_are_explained():
    with socket.create_server(('127.0.0.1', 0)) as server:
        assert_meaning(error_of(join, 0, server.getsockname()[1]), 'the port .* is in use')
    assert_meaning(error_of(join, 0, free_port()), 'the processes of this run could not connect to each other')


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group('gloo', f'file://{tmp_path}/meeting', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_unused_parameters_are_explained(one_process):
    net = torch.nn.Linear(1, 1)
    net.unused = torch.nn.Parameter(torch.ones(1))
    wrapped = torch.nn.parallel.DistributedDataParallel(net)
    wrapped(torch.ones(1, 1)).sum().backward()
    assert_meaning(error_of(wrapped, torch.ones(1, 1)), 'some weights .*: set find_unused_parameters: true')


def reduce_with(port: int, rank: int, fault, answers) -> None:
    """Runs one of two processes; rank 1 fails before the second operation, for which rank 0 waits 2 s."""
    join(rank, port, seconds=60)
    tensor = torch.ones(10)
    dist.all_reduce(tensor)
    impatient = dist.new_group(timeout=datetime.timedelta(seconds=2))
    dist.barrier()
    if rank:
        fault()
    answers.put(explain(error_of(dist.all_reduce, tensor, group=impatient)))


@pytest.mark.slow
@pytest.mark.parametrize(('fault', 'meaning'), [
    (be_killed, 'another process of this run has ended; the cause is in its own error'),
    (hang, 'the processes of this run timed out waiting for one of them, .* dist_params.timeout'),
])  # fmt: skip
def test_errors_of_other_processes_are_explained(fault, meaning):
    answers, port = warm().SimpleQueue(), free_port()
    ranks = [warm().Process(target=reduce_with, args=(port, rank, fault, answers)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    ranks[0].join(60)
    ranks[1].kill()
    assert not answers.empty()
    assert re.match(meaning, answers.get())
