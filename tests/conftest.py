"""Small data sets and options for all tests, and the options of the test run."""

from __future__ import annotations

import copy
import os
import signal
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from shared import made_once

SIZE = (48, 48)
_FAULTS = Path(__file__).with_name('faults')


def pytest_configure(config: pytest.Config) -> None:
    """Makes BasicSR importable in the processes that run tests; the process that starts them does not need it.

    That one imports yapf, which writes a cache at its first import; two processes at once may read it half written.
    All processes have one thread: with another number, trainings end with other bits.
    """
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    if hasattr(config, 'workerinput') or not config.getoption('numprocesses', None):
        import dblr_plugin  # noqa: F401
    else:
        import yapf  # noqa: F401


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--fast``, ``--thorough`` and ``--damaged``."""
    parser.addoption('--fast', action='store_true', help='leave out slow tests, and most inputs of the others')
    thorough_help = 'every damaged input for every command that reads it, and 30 kills for each test of them'
    parser.addoption('--thorough', action='store_true', help=thorough_help)
    damaged_help = 'files that tests/faults/test_random_damage.py damages (default: 21, one of each kind)'
    parser.addoption('--damaged', type=int, default=21, metavar='N', help=damaged_help)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what ``--fast`` leaves out: slow tests, and of each other test all but every fourth input."""
    if not config.getoption('fast'):
        return
    counts: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        test = item.nodeid.partition('[')[0]
        is_due = counts[test] % (8 if item.path.parent == _FAULTS else 4) == 0
        counts[test] += 1
        (kept if is_due and not item.get_closest_marker('slow') else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def kills(pytestconfig: pytest.Config) -> int:
    """How often a test kills and resumes a process."""
    return 30 if pytestconfig.getoption('thorough') else 8


@pytest.fixture(scope='session', autouse=True)
def _signals() -> None:
    """Processes that tests interrupt receive signals, even if the tests run in the background or under nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope='session', autouse=True)
def _known_logger() -> None:
    """Sets up BasicSR's logger before the tests, so that pytest captures it although it does not propagate."""
    from basicsr.utils import get_root_logger

    get_root_logger()


def _write_clip(root: Path, clip: str, seed: int, frames: int) -> None:
    noise = np.random.default_rng(seed).random((SIZE[0], SIZE[1] + 2 * frames + 4))
    texture = cv2.GaussianBlur(noise, (0, 0), 1.2)
    texture = (texture - texture.min()) / np.ptp(texture)
    # detail is in brightness, as in most videos, since DBLRNet restores only Y
    texture = texture[..., None] * np.array([200.0, 255.0, 230.0])
    for side in ('gt', 'lq'):
        (root / side / clip).mkdir(parents=True)
    for i in range(frames):
        views = [texture[:, 2 * i + d : 2 * i + d + SIZE[1]] for d in range(5)]
        for side, frame in (('gt', views[2]), ('lq', np.mean(views, axis=0))):
            assert cv2.imwrite(str(root / side / clip / f'{i:08d}.png'), frame.round().astype(np.uint8))


@pytest.fixture(scope='session')
def footage(request: pytest.FixtureRequest) -> Path:
    """Blurry and sharp moving texture: ``train/{lq,gt}/{a,b}`` and ``val/{lq,gt}/{v,w}``, 8 and 6 frames of 48x48."""
    return made_once(request, 'footage', _write_footage)


def _write_footage(root: Path) -> Path:
    clips = [('train', 'a', 8), ('train', 'b', 8), ('val', 'v', 6), ('val', 'w', 6)]
    for seed, (part, clip, frames) in enumerate(clips):
        _write_clip(root / part, clip, seed, frames)
    return root


_NETWORK = {'type': 'DBLRNet', 'num_feat': 16, 'num_block': 1, 'input_skip': True}
_METRICS = {
    'psnr': {'type': 'calculate_psnr', 'crop_border': 0},
    'ssim': {'type': 'calculate_ssim', 'crop_border': 0},
}


def _test_set(footage: Path, name: str = 'V') -> dict:
    roots = {'dataroot_lq': str(footage / 'val/lq'), 'dataroot_gt': str(footage / 'val/gt')}
    return {'name': name, 'type': 'VideoDeblurTestDataset', **roots}


@pytest.fixture
def train_options(footage: Path) -> dict:
    """Options of a small DBLRNet training; each test has its own copy."""
    train_set = {
        'name': 'T',
        'type': 'VideoDeblurDataset',
        'dataroot_lq': str(footage / 'train/lq'),
        'dataroot_gt': str(footage / 'train/gt'),
        'gt_size': 32,
        'use_hflip': True,
        'num_worker_per_gpu': 0,
        'batch_size_per_gpu': 4,
        'dataset_enlarge_ratio': 100,
    }
    return copy.deepcopy(
        {
            'name': 'net',
            'model_type': 'VideoDeblurModel',
            'scale': 1,
            'num_gpu': 0,
            'manual_seed': 0,
            'datasets': {'train': train_set, 'val': _test_set(footage)},
            'network_g': _NETWORK,
            'path': {'pretrain_network_g': None},
            'train': {
                'optim_g': {'type': 'Adam', 'lr': 1e-3},
                'scheduler': {'type': 'MultiStepLR', 'milestones': [1000], 'gamma': 0.5},
                'total_iter': 10,
                'pixel_opt': {'type': 'MSELoss'},
            },
            'val': {'val_freq': 1000, 'save_img': False, 'pbar': False, 'metrics': _METRICS},
            'logger': {'print_freq': 5, 'save_checkpoint_freq': 5, 'use_tb_logger': True},
        }
    )


@pytest.fixture
def gan_options(train_options: dict) -> dict:
    """Options of a small DBLRGAN training."""
    train_options |= {
        'name': 'gan',
        'model_type': 'DBLRGANModel',
        'network_d': {'type': 'DBLRDiscriminator', 'num_feat': 8, 'num_fc': 16},
    }
    train_options['train'] |= {
        'optim_d': {'type': 'Adam', 'lr': 1e-4},
        'gan_opt': {'type': 'MinimaxGANLoss', 'loss_weight': 2e-4},
    }
    return train_options


@pytest.fixture
def test_options(train_options: dict, footage: Path) -> dict:
    """Options that test the same network."""
    return {
        **{k: train_options[k] for k in ('model_type', 'scale', 'num_gpu', 'manual_seed', 'network_g', 'path', 'val')},
        'name': 'tested',
        'datasets': {'test': _test_set(footage)},
    }
