"""Options that conflict with each other are refused."""

import re

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from changes import changed, line_of
from processes import write_options
from torch import nn

from dblr_plugin.errors import DBLRError
from dblr_plugin.options.option_file import check_option_file

_CAUSAL = {
    f'{section}.causal': True for section in ('network_g', *(f'datasets.{d}' for d in ('train', 'val', 'val_2')))
}

_ALONE = {'model_type': 'VideoDeblurModel', 'network_d': None, 'train.optim_d': None, 'train.gan_opt': None}


@pytest.mark.parametrize(('changes', 'at', 'message'), [
    ({'datasets.train.y_only': True, 'network_g.num_in_ch': 3, 'network_g.num_out_ch': 3, 'network_d.num_in_ch': 3},
     'datasets.train.y_only', 'but network_g takes 3 channels; remove it or set num_in_ch: 1'),
    ({'network_g.num_in_ch': 2, 'network_g.num_out_ch': 2}, 'network_g.num_in_ch', 'frames have 1 (Y) or 3 (RGB)'),
    ({'network_g.num_in_ch': 3}, 'network_g', 'num_out_ch is 1, and num_in_ch is 3; set both to the same value'),
    ({'network_d.num_in_ch': 3}, 'network_d.num_in_ch', 'network_g restores 1 channels; set network_d to the same'),
    ({'network_g': {'type': 'EDVR'}, 'network_d.num_in_ch': 3}, 'network_g', 'set hr_in: true'),
    ({'network_g': {'type': 'EDVR', 'hr_in': True, 'with_predeblur': True, 'num_feat': 12}, 'network_d.num_in_ch': 3},
     'network_g.num_feat', 'network_g.num_feat is 12, and must be a multiple of deformable_groups, 8'),
    ({'network_g': {'type': 'EDVR', 'hr_in': True, 'with_predeblur': True, 'center_frame_idx': 1},
      'network_d.num_in_ch': 3},
     'network_g.center_frame_idx', 'must be 2 (the middle frame of a window) or 4'),
    ({'network_g': {'type': 'EDVR', 'hr_in': True}, 'network_d.num_in_ch': 3}, 'network_g',
     'network_g.with_predeblur is false, and the network would enlarge frames fourfold; set with_predeblur: true'),
    ({'network_g': {'type': 'EDVR', 'hr_in': True, 'with_predeblur': True}, 'network_d.num_in_ch': 3,
      'datasets.train.gt_size': 40}, 'datasets.train.gt_size', 'frames of EDVR are multiples of 16; write 48'),
    ({'network_g': {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3}, 'network_d.num_in_ch': 3}, 'network_g.type',
     'is RRDBNet, which does not restore one frame per window'),
    ({'network_g': {'type': 'BasicVSR'}, 'network_d.num_in_ch': 3}, 'network_g.type', 'is BasicVSR, which does not'),
    ({'network_g': {'type': 'BlurryInput'}, 'network_d.num_in_ch': 3}, 'network_g.type', 'has no weights to train'),
    ({'train.optim_g.capturable': True}, 'train.optim_g', 'cannot be used: If capturable=True'),
    ({'train.optim_g.differentiable': True}, 'train.optim_g', 'cannot be used: a leaf Variable that requires grad'),
    ({'network_g.num_block': -1}, 'network_g', 'cannot be built: num_feat must be at least 1, num_block at least 0'),
    ({'network_d.num_fc': 0}, 'network_d', 'cannot be built: num_feat and num_fc must be at least 1'),
    ({'network_g.groups': 3}, 'network_g', 'cannot be built: groups must divide 16'),
    ({'network_g.num_frame': 3}, 'datasets.train', 'num_frame is 5, but network_g takes windows of 3 frames'),
    ({'datasets.val.num_frame': 7}, 'datasets.val.num_frame', 'is 7, but network_g takes windows of 5'),
    ({'datasets.val.causal': True}, 'datasets.val.causal', 'is true, unlike network_g; set both to the same value'),
    ({'network_g.causal': True}, 'datasets.train', 'causal is false, unlike network_g; set both to the same value'),
    (_CAUSAL | {'datasets.train.random_reverse': True}, 'datasets.train.random_reverse', 'set it to false'),
    (_CAUSAL | {'datasets.val.padding': 'circle'}, 'datasets.val.padding', 'causal windows are padded by replicate'),
    ({'datasets.val.flow': True}, 'datasets.val.flow', 'is true, unlike network_g: DBLRNet takes frames as they are'),
    ({'network_g': {'type': 'FourierBurstAccumulation'}, 'network_d.num_in_ch': 3,
      'datasets.train.flow': 'consistent', 'datasets.val.flow': True},
     'datasets.val.flow', 'is true, unlike network_g: set both to the same value'),
    ({'network_g': {'type': 'DBN', 'flow': True}, 'network_d.num_in_ch': 3}, 'datasets.train',
     'flow is false, unlike network_g: set both to the same value'),
    ({'train.lr_mul': {'dcn': 0.1}}, 'train.lr_mul.dcn', 'fits no parameter of DBLRNet, whose parts are body, conv_l1'),
    ({'train.train_only': {'conv': 5, 0: 5}}, 'train.train_only', '0 fits no parameter of DBLRNet'),
    ({'network_g': {'type': 'DBN', 'num_feat': 0}, 'network_d.num_in_ch': 3}, 'network_g', 'cannot be built: num_feat'),
    ({'datasets.val_2.name': 'V'}, 'datasets.val_2.name', "is 'V', as that of datasets.val; give it one of its own"),
    ({'datasets.val.type': 'VideoDeblurDataset'}, 'datasets.val.type', 'write VideoDeblurTestDataset'),
    ({'datasets.train.type': 'VideoDeblurTestDataset'}, 'datasets.train.type', 'write VideoDeblurDataset'),
    ({'datasets.test': {}}, 'datasets.test', 'the data sets of training must be called train, val, val_2 and so on'),
    ({'datasets.train_2': {}}, 'datasets.train_2', 'the data sets of training'),
    ({'val.protocol': 'lume'}, 'val.protocol', "no protocol is called 'lume'; did you mean 'luma'?"),
    ({'val.protocol': ['vrt-matlab', 'vrt-matalb']}, 'val.protocol', "did you mean 'vrt-matlab'?"),
    ({'val.protocol': []}, 'val.protocol', 'no protocol is named'),
    ({'network_d': ...}, None, 'network_d is missing, and DBLRGANModel needs it; add it, or use VideoDeblurModel'),
    ({'train.optim_d': ...}, 'train', 'train.optim_d is missing'),
    ({'train.gan_opt': None}, 'train.gan_opt', 'is missing'),
    ({'model_type': 'VideoDeblurModel'}, 'network_d', 'is given, and VideoDeblurModel trains no discriminator; remove'),
    ({**_ALONE, 'train.optim_d': {'type': 'Adam', 'lr': 1e-4}}, 'train.optim_d', 'is given, and VideoDeblurModel'),
    ({'train.gan_opt': {'type': 'MSELoss'}}, 'train.gan_opt.type', 'is MSELoss, which cannot be used here; write GANL'),
    ({'train.pixel_opt': {'type': 'GANLoss', 'gan_type': 'hinge'}}, 'train.pixel_opt.type', 'write L1Loss or MSELoss'),
    ({'train.perceptual_opt': {'type': 'L1Loss'}}, 'train.perceptual_opt.type', 'write PerceptualLoss'),
    ({'train.pixel_opt': ...}, 'train', 'has neither pixel_opt nor perceptual_opt; add one'),
    ({'datasets.train.prefetch_mode': 'cpu'}, 'datasets.train.prefetch_mode', 'hangs when a frame cannot be read'),
    ({'datasets.train.prefetch_mode': 'cuda'}, 'datasets.train.prefetch_mode', 'add pin_memory: true beside it'),
    ({'train.accumulate': 3}, 'train.accumulate', 'does not divide batch_size_per_gpu, 4'),
    ({'val.pad_multiple': 12}, 'datasets.train.gt_size', 'frames of DBLRNet are multiples of 12; write 36'),
    ({'datasets.train.gt_size': 8}, 'datasets.train.gt_size', 'DBLRDiscriminator needs crops of at least 16'),
    ({'network_d': {'type': 'VGGStyleDiscriminator', 'num_in_ch': 1, 'num_feat': 8}}, 'datasets.train.gt_size',
     'is 32, and VGGStyleDiscriminator takes crops of input_size, 128; set both to 128 or 256'),
    ({'train.scheduler.milestones': [2, 1]}, 'train.scheduler.milestones', 'must increase'),
    ({'train.scheduler.milestones': [2, 2]}, 'train.scheduler.milestones', 'write each once'),
    ({'train.scheduler.restarts': [0, 5]}, 'train.scheduler', 'restart_weights are 1, and restarts are 2'),
    ({'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [4, 4]}}, 'train.scheduler',
     'restart_weights are 1, and periods are 2'),
    ({'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [4]}}, 'train.scheduler.periods',
     'add up to 4 iterations, less than total_iter, 10; lengthen the last'),
    ({'train.compile': 'reduce-overhead'}, 'train.compile', 'which DBLRGANModel does not offer; write true'),
    ({'train.compile': 'reduce-overhead', **_ALONE, 'train.accumulate': 2}, 'train.compile',
     'takes a batch whole; write true, or remove accumulate'),
    ({'train.multi_scale': True}, 'train.multi_scale', 'is true, and DBLRNet restores only one size; remove it'),
    ({'train.multi_scale': True, 'network_g': {'type': 'DeepDeblur', 'num_frame': 5}, 'network_d.num_in_ch': 3,
      'datasets.train.gt_size': 30}, 'datasets.train.gt_size', 'needs a multiple of 4; write 32'),
    ({'path.ignore_resume_networks': ['net_d']}, 'path.ignore_resume_networks',
     "names 'net_d'; the networks are network_g and network_d"),
    ({'logger.wandb': {'project': 'p'}, 'logger.use_tb_logger': False}, 'logger.wandb.project', 'use_tb_logger: true'),
])  # fmt: skip
def test_conflicting_options_are_refused_with_their_line(gan_options, tmp_path, changes, at, message):
    gan_options['datasets']['val_2'] = {**gan_options['datasets']['val'], 'name': 'V2'}
    check_option_file(write_options(tmp_path / 'good.yml', gan_options), is_train=True)
    for trail, value in changes.items():
        gan_options = changed(gan_options, trail, value)
    path = write_options(tmp_path / 'train.yml', gan_options)
    with pytest.raises(DBLRError) as error:
        check_option_file(path, is_train=True)
    line = 1 if at is None else line_of(path, at)
    assert re.search(rf'^ *{path}:{line}: {at or ""}', str(error.value), re.MULTILINE), str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize('changes', [
    {'train.scheduler.milestones': [1000, 2000], 'train.warmup_iter': 5000},
    {'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [10]}},
    {'train.scheduler': {'type': 'PlateauLR'}},
    {'train.accumulate': 4},
    {'train.optim_g': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
    {'train.optim_g': {'type': 'AdamW', 'lr': 1, 'betas': [0, 0.9]}},
    {'datasets.train.name': 'V'},
    {'network_g': {'type': 'EDVR', 'hr_in': True, 'with_predeblur': True}, 'network_d.num_in_ch': 3,
     'val.pad_multiple': 16},
    {'network_g': {'type': 'EDVR', 'hr_in': True, 'with_predeblur': True}, 'network_d.num_in_ch': 3,
     'val.pad_multiple': 16, 'train.lr_mul': {'dcn': 0.1}, 'train.train_only': {'fusion': 5}},
    {'network_g': {'type': 'DBN', 'flow': True}, 'network_d.num_in_ch': 3, 'datasets.train.flow': True,
     'datasets.val.flow': True},
    {'train.multi_scale': True, 'network_g': {'type': 'DeepDeblur', 'num_frame': 5}, 'network_d.num_in_ch': 3},
    {'datasets.train.prefetch_mode': 'cuda', 'datasets.train.pin_memory': True},
    {'logger.wandb': {'project': 'p'}},
    {f'datasets.{phase}.causal': True for phase in ('train', 'val')} | {'network_g.causal': True},
])  # fmt: skip
def test_compatible_options_pass(gan_options, tmp_path, changes):
    for trail, value in changes.items():
        gan_options = changed(gan_options, trail, value)
    check_option_file(write_options(tmp_path / 'train.yml', gan_options), is_train=True)


def test_windows_of_a_network_without_num_frame_are_of_five(train_options, tmp_path):
    """Training would use the data set's number, and validation, tests and deblurring five frames, without a word."""

    @ARCH_REGISTRY.register()
    class MeanOfFrames(nn.Module):
        def forward(self, x):
            return x.mean(dim=1)

    options = changed(train_options, 'network_g', {'type': 'MeanOfFrames'})
    check_option_file(write_options(tmp_path / 'train.yml', options), is_train=True)
    path = write_options(tmp_path / 'train.yml', changed(options, 'datasets.train.num_frame', 3))
    with pytest.raises(DBLRError, match='is 3, .* of 5 frames; give MeanOfFrames an argument num_frame that is 3'):
        check_option_file(path, is_train=True)


def test_network_that_reads_tensors_while_it_is_built(train_options, tmp_path):
    """As Swin transformers do, whose names could not be looked up without memory for the weights: a traceback."""

    @ARCH_REGISTRY.register()
    class LikeSwin(nn.Module):
        def __init__(self, num_in_ch=3, num_frame=5):
            super().__init__()
            self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
            self.attention = nn.Conv2d(num_in_ch, num_in_ch, 1)

    options = changed(train_options, 'network_g', {'type': 'LikeSwin'})
    options['train']['lr_mul'] = {'attention': 0.1}
    path = tmp_path / 'train.yml'
    check_option_file(write_options(path, options), is_train=True)
    options['train']['lr_mul'] = {'body': 0.1}
    with pytest.raises(DBLRError, match='fits no parameter of LikeSwin, whose parts are attention'):
        check_option_file(write_options(path, options), is_train=True)


def test_test_sets_must_have_different_names(test_options, tmp_path):
    def refusal(datasets: dict) -> str:
        path = write_options(tmp_path / 'test.yml', test_options | {'datasets': datasets})
        with pytest.raises(DBLRError) as error:
            check_option_file(path, is_train=False)
        return str(error.value)

    one = test_options['datasets']['test']
    assert "is 'V', as that of datasets.test" in refusal({'test': one, 'test_2': one})
    assert 'the data sets of testing must be called test, test_2, val' in refusal({'train': one})
