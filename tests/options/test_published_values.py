"""The shipped option files contain the published values, each listed with its source."""

import functools
import re
import shlex
from pathlib import Path

import pytest

from dblr_plugin.link import option_files
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.yaml_file import read_option_file, take_overrides

TRAININGS = {path.stem: path for path in option_files() if path.name.startswith('train_')}

# "notes": from a reader's notes on arXiv 1804.00533. "quoted": stated about the paper by others, and not confirmed by
# any text of the paper that we could read.
OF_ALL = [
    ('datasets.train.num_frame', 5, 'notes: five consecutive frames'),
    ('network_g.num_frame', 5, 'notes: five consecutive frames'),
    ('network_g.num_in_ch', 1, 'notes: Y of YCbCr as input'),
    ('network_g.num_block', 14, 'quoted: L3-L30 are 14 blocks of two layers'),
    (
        'network_g.groups',
        1,
        'SimDeblur, a re-implementation; "16 groups in, 16 groups out" in the notes allows 16',
    ),
    ('train.pixel_opt.type', 'MSELoss', 'notes: content loss, mean of (sharp - G(blurry))^2'),
    ('datasets.train.gt_size', 128, 'quoted: patches of 128x128'),
    ('datasets.train.batch_size_per_gpu', 4, 'quoted: batches of 4, in all'),
    ('datasets.train.use_hflip', True, 'quoted: flips'),
    ('datasets.train.use_rot', False, 'quoted: flips alone'),
    ('train.optim_g.type', 'Adam', 'quoted'),
    ('train.optim_g.lr', 1e-4, 'quoted: 1e-4 at first'),
    ('train.scheduler.milestones', [150_000], 'quoted: until the loss stops falling, about 1.5e5 iterations'),
    ('train.scheduler.gamma', 0.1, 'quoted: 1e-5 from then on'),
]
OF_NET = [('network_g.init_std', 0.01, 'quoted: weights from N(0, 0.01)')]
OF_GAN = [
    ('train.gan_opt.type', 'MinimaxGANLoss', 'notes: log(1 - D(G(blurry)))'),
    ('train.gan_opt.loss_weight', 2e-4, 'quoted: alpha = 0.0002'),
    ('train.optim_d.lr', 1e-4, 'quoted: 1e-4 at first'),
    ('train.net_d_iters', 1, 'quoted: alternating updates'),
    ('network_d.init_std', 0.01, 'quoted: weights from N(0, 0.01)'),
]
SETS = ('', '_BSD', '_GoPro', '_REDS')
VALUES = [(f'train_DBLRNet{s}', *row) for s in SETS for row in OF_ALL + OF_NET]
VALUES += [(f'train_DBLRGAN{s}', *row) for s in SETS for row in OF_ALL + OF_GAN]
# the authors' code: opts.lua and loss.lua of SeungjunNah/DeepDeblur_release; launcher.m of
# shuochsu/DeepVideoDeblurring; train_EDVR_M_x4_SR_REDS.yml of XPixelGroup/BasicSR
VALUES += [
    ('train_DeepDeblur', 'train.optim_g.betas', [0.9, 0.999], 'opts.lua: beta1, beta2'),
    ('train_DeepDeblur', 'train.optim_g.lr', 5e-5, 'opts.lua: rateLearning'),
    ('train_DeepDeblur', 'datasets.train.gt_size', 256, 'opts.lua: supWidth'),
    ('train_DeepDeblur', 'train.multi_scale', True, 'loss.lua: one criterion for each scale'),
    ('train_DeepDeblur', 'train.pixel_opt.type', 'MSELoss', 'opts.lua: mse_weight 1, abs_weight 0'),
    ('train_DeepDeblur', 'network_g.gaussian', True, 'donkey.lua: image.gaussianpyramid'),
    ('train_DBN', 'datasets.val.padding', 'replicate', 'launcher.m: indices are limited to those of the clip'),
    ('train_EDVR', 'train.train_only.fusion', 50_000, 'tsa_iter'),
]


def ids(value: object) -> str:
    return str(value) if isinstance(value, str) else ''


@functools.cache
def options(name: str) -> dict:
    return read_option_file(TRAININGS[name]).plain()


@pytest.mark.parametrize(('name', 'trail', 'value', 'source'), VALUES, ids=ids)
def test_published_values(name, trail, value, source):
    assert functools.reduce(dict.__getitem__, trail.split('.'), options(name)) == value, source


@pytest.mark.parametrize('name', [f'train_DBLR{kind}{s}' for s in SETS for kind in ('Net', 'GAN')])
def test_learning_rate_falls_to_the_published_value(name):
    train = options(name)['train']
    for optimiser in ('optim_g', 'optim_d'):
        if optimiser in train:
            assert train[optimiser]['lr'] * train['scheduler']['gamma'] == pytest.approx(1e-5)


@pytest.mark.parametrize('suffix', SETS)
def test_dblrgan_starts_from_the_trained_dblrnet(suffix):
    net, gan = options(f'train_DBLRNet{suffix}'), options(f'train_DBLRGAN{suffix}')
    assert gan['path']['pretrain_network_g'] == f'experiments/{net["name"]}/models/net_g_latest.pth'
    started = net['network_g'].items() - {('init_std', 0.01)}
    assert gan['network_g'].items() == started


def command_of(path: Path) -> list[str]:
    """Returns the command for several GPUs from the comment at the top of a file."""
    text = path.read_text().replace('\\\n#', '')
    line = next(line for line in text.splitlines() if line.startswith('#   torchrun'))
    return shlex.split(re.split('  +on ', line.removeprefix('#   '))[0])


@pytest.mark.parametrize(('kind', 'batch'), [
    ('train_DBLRNet', 4), ('train_DBLRGAN', 4), ('train_DBN', 64), ('train_DeepDeblur', 2), ('train_EDVR', 32),
])  # fmt: skip
def test_command_for_several_gpus_keeps_the_batch_size(kind, batch):
    paths = [path for name, path in TRAININGS.items() if name.startswith(kind)]
    assert paths
    for path in paths:
        overrides, command = take_overrides(command_of(path))
        assert command[-2:] == ['-opt', f'options/{path.name}']
        processes = int(command[1].removeprefix('--nproc_per_node='))
        opt = check_option_file(path, is_train=True, overrides=overrides)
        assert processes * opt['datasets']['train']['batch_size_per_gpu'] == batch, path
