"""Several processes and nodes: the same result, and no hang when one of them fails."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import Run, dblr, free_port, start_ranks, warm, write_options

from dblr_plugin import hooks

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[1] / 'scripts'
DIST_TRAIN = SCRIPTS / 'dist_train.sh'


@pytest.fixture
def options(gan_options: dict) -> dict:
    """DBLRGAN with EMA, long enough to be stopped in the middle."""
    gan_options['datasets']['train']['batch_size_per_gpu'] = 1
    gan_options['train'] |= {'ema_decay': 0.9, 'total_iter': 12}
    gan_options['val']['val_freq'] = 6
    gan_options['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 10, 'use_tb_logger': False}
    return gan_options


class Job:
    """A command in a folder of its own, with what it prints in ``output.txt`` there."""

    def __init__(self, folder: Path, *command: object, **env: str) -> None:
        self.log = folder / 'output.txt'
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=folder,
                env={**os.environ, 'OMP_NUM_THREADS': '1', **env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors='replace')

    def until(self, pattern: str, within: float = 240) -> None:
        """Waits until it has printed this."""
        deadline = time.monotonic() + within
        while not re.search(pattern, self.output):
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def ends(self, within: float = 240) -> int:
        """Waits for the end; returns the exit code."""
        return self.process.wait(within)


@pytest.fixture
def start() -> Iterator[Callable[..., Job]]:
    """Starts jobs, and ends what a failed test has left of them."""
    jobs = []

    def start_job(*args: object, **env: str) -> Job:
        jobs.append(Job(*args, **env))
        return jobs[-1]

    yield start_job
    for job in jobs:
        if job.process.poll() is None:
            job.process.terminate()
            job.process.wait(60)


def errors_in(output: str) -> set[str]:
    """The errors that our processes gave."""
    return {line.split('dblr: error: ')[1] for line in output.splitlines() if 'dblr: error: ' in line}


def results(folder: Path) -> dict[str, object]:
    """The networks and figures that a run ends with."""
    run = folder / 'experiments/gan'
    networks = {path.name: torch.load(path) for path in run.glob('models/*_latest.pth')}
    weights = {
        f'{name} {group} {key}': value.tolist()
        for name, groups in networks.items()
        for group, content in groups.items()
        if group.startswith('params')
        for key, value in content.items()
    }
    return {**weights, 'figures': json.loads((run / 'metrics.json').read_text())}


def different(one: dict[str, object], two: dict[str, object]) -> list[str]:
    assert one.keys() == two.keys()
    return [name for name, value in one.items() if two[name] != value]


def folder(root: Path, name: str) -> Path:
    (root / name).mkdir()
    return root / name


def test_two_nodes_that_were_stopped_end_as_one_node(options, start, tmp_path):
    """Two of scripts/dist_train.sh, which share no folder; SIGTERM to torchrun, and they go on from one's checkpoint.

    torch.distributed.launch adds ``--local-rank=N`` to the arguments, its predecessors ``--local_rank=N``.
    """
    path = write_options(tmp_path / 'gan.yml', options)
    whole = folder(tmp_path, 'whole')
    result = dblr('train', '-opt', path, cwd=whole, processes=2)
    assert result.returncode == 0, result.stderr
    expected = results(whole)

    meeting = {'NNODES': '2', 'MASTER_ADDR': '127.0.0.1', 'PORT': str(free_port())}
    nodes = [folder(tmp_path, rank) for rank in '01']
    command = ['bash', DIST_TRAIN, 1, path, '--local_rank=0']
    jobs = [start(node, *command, NODE_RANK=node.name, **meeting) for node in nodes]
    jobs[0].until(r'iter:\s+3,')
    for job in jobs:
        job.process.send_signal(signal.SIGTERM)
    for job in jobs:
        assert job.ends() != 0
    iteration = int(re.search(r'Stopped and saved at iteration (\d+);', jobs[0].output).group(1))
    assert 3 <= iteration < 10
    assert (nodes[0] / f'experiments/gan/training_states/{iteration}.state').exists()

    for run in start_ranks(nodes, 'train', '-opt', path, '--auto_resume'):
        assert run.wait() == 1
        (error,) = errors_in(run.stderr)
        assert f'checkpoints of different iterations ([{iteration}, None])' in error
    shutil.rmtree(nodes[1] / 'experiments', ignore_errors=True)
    shutil.copytree(nodes[0] / 'experiments', nodes[1] / 'experiments')
    resumed = start_ranks(nodes, 'train', '-opt', path, '--auto_resume', '--local-rank=0')
    assert [run.wait() for run in resumed] == [0, 0], resumed[0].stderr
    assert f'iter: {iteration}.' in resumed[0].stderr
    assert not different(results(nodes[0]), expected)


@pytest.mark.parametrize('script', ['dist_train.sh', 'slurm_train.sh'])
def test_scripts_say_how_they_are_used(script):
    assert subprocess.run(['bash', '-n', SCRIPTS / script]).returncode == 0
    result = subprocess.run(['bash', SCRIPTS / script], capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith('usage: ')


def test_the_end_of_all_processes_is_that_of_the_launcher(tmp_path):
    for program, code in (('true', 0), ('false', 1)):
        arguments = ['--standalone', '--nproc-per-node=2', '--no-python', program]
        assert Run(*arguments, cwd=tmp_path, program='dblr_plugin.launch').wait() == code


# ---------------------------------------------------------------------- failures


def damage(path: Path) -> None:
    """Leaves head and end of a PNG file, so that only decoding it can tell."""
    content = bytearray(path.read_bytes())
    content[60:-40] = bytes(len(content) - 100)
    path.write_bytes(content)


LOST = 'another process of this run has ended; the cause is in its own error, above or on its machine'


def start_torchrun(program: str, folder: Path, options: Path) -> Run:
    """Two processes, started by a fork of the warm process, which has imported what torchrun needs."""
    arguments = ['--standalone', '--nproc-per-node=2', '-m', 'dblr_plugin.train', '-opt', options]
    return Run(*arguments, cwd=folder, program=program)


def test_a_rank_that_fails_ends_all(options, footage, tmp_path):
    """One rank comes to a frame that was damaged after the start, while the other waits for its gradients."""
    shutil.copytree(footage / 'train', tmp_path / 'train')
    roots = {'dataroot_lq': 'train/lq', 'dataroot_gt': 'train/gt'}
    options['datasets']['train'] |= {**roots, 'dataset_enlarge_ratio': 1000}
    options['train']['total_iter'] = 10000
    run = start_torchrun('dblr_plugin.launch', tmp_path, write_options(tmp_path / 'gan.yml', options))
    assert run.until(lambda: re.search(r'iter:\s+3,', run.stderr)), run.stderr
    damage(tmp_path / 'train/lq/a/00000000.png')
    assert run.until(lambda: 'dblr: error: train/lq/a/00000000.png cannot be decoded' in run.stderr), run.stderr
    assert run.wait(30) == 1
    cause = 'train/lq/a/00000000.png cannot be decoded as an image; replace it with an intact copy'
    assert cause in errors_in(run.stderr) and errors_in(run.stderr) <= {cause, LOST}
    assert not re.search('Traceback|error_handler', run.stdout + run.stderr)  # torchrun's


def test_a_rank_that_hangs_ends_the_others(options, tmp_path):
    """After ``dist_params.timeout``, and nobody has to wait for torch's 30 minutes."""
    options['dist_params'] = {'backend': 'nccl', 'port': 29500, 'timeout': 5}
    options['datasets']['train']['dataset_enlarge_ratio'] = 1000
    options['train']['total_iter'] = 10000
    path = write_options(tmp_path / 'gan.yml', options)
    waiting, hanging = start_ranks([tmp_path] * 2, 'train', '-opt', path)
    assert waiting.until(lambda: re.search(r'iter:\s+3,', waiting.stderr)), waiting.stderr
    os.kill(hanging.pid, signal.SIGSTOP)
    assert waiting.wait() == 1
    hanging.kill()
    (error,) = errors_in(waiting.stderr)
    assert 'timed out waiting for one of them' in error


def test_a_loader_that_hangs_ends_the_run(options, footage, tmp_path):
    """A frame becomes a pipe into which nobody writes: reading it takes for ever, as on a dead network drive."""
    shutil.copytree(footage / 'train', tmp_path / 'train')
    roots = {'dataroot_lq': 'train/lq', 'dataroot_gt': 'train/gt'}
    options['datasets']['train'] |= {**roots, 'num_worker_per_gpu': 1, 'timeout': 2, 'dataset_enlarge_ratio': 1000}
    options['train']['total_iter'] = 10000
    run = Run('train', '-opt', write_options(tmp_path / 'gan.yml', options), cwd=tmp_path)
    assert run.until(lambda: re.search(r'iter:\s+3,', run.stderr)), run.stderr
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'pipe').replace(tmp_path / 'train/gt/a/00000003.png')
    assert run.wait() == 1
    (error,) = errors_in(run.stderr)
    assert 'no batch came for 2 s' in error


def _draw_a_seed(rank: int, path: str, launcher: str, port: int) -> None:
    if launcher == 'slurm':
        os.environ |= {'SLURM_PROCID': str(rank), 'SLURM_LOCALID': '0', 'SLURM_NTASKS': '2'}
        os.environ |= {'SLURM_NODELIST': '127.0.0.[1-2,5]'}
    else:
        os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2'}
        os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    sys.argv = ['train', '-opt', path, f'--launcher={launcher}', '--set', f'dist_params.port={port}']
    random.seed(rank)  # forks of one process would draw the same
    opt, _ = hooks.parse_options(str(Path(path).parent))
    seeds = [None, None]
    dist.all_gather_object(seeds, (opt['manual_seed'], torch.initial_seed() - rank))
    assert seeds[0] == seeds[1] == (opt['manual_seed'], opt['manual_seed']), seeds
    dist.destroy_process_group()


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_processes_share_the_seed_that_one_of_them_draws(options, tmp_path, launcher):
    """Without ``manual_seed``; the order of samples, which they divide, depends on it."""
    path, port = write_options(tmp_path / 'gan.yml', options | {'manual_seed': None}), free_port()
    processes = [warm().Process(target=_draw_a_seed, args=(rank, str(path), launcher, port)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_one_error_of_all_is_told_once(tmp_path):
    """All processes read the same faulty file; each that told its fault would hide the others' own."""
    options = tmp_path / 'none.yml'
    options.write_text('name: x\nmodel_type: VideoDeblurModel\n')
    run = start_torchrun('torch.distributed.run', tmp_path, options)
    assert run.wait() != 0
    told = re.findall('^dblr: error: (.*)', run.stderr, flags=re.MULTILINE)
    assert len(told) == 1, run.stderr
    assert f'traceback : {told[0]}' in run.stderr.partition('Root Cause')[2]
