"""Options with every key of the schema."""

from __future__ import annotations

import pytest


@pytest.fixture
def full_options(gan_options: dict, footage) -> dict:
    """A DBLRGAN training with every key of the schema and several arguments of each class."""
    train_set = gan_options['datasets']['train']
    train_set |= {
        'num_frame': 5,
        'interval_list': [1, 2],
        'random_reverse': True,
        'use_rot': False,
        'y_only': False,
        'flow': False,
        'io_backend': {'type': 'disk'},
        'meta_info_file': None,
        'scale': 1,
        'pin_memory': True,
        'persistent_workers': False,
        'timeout': 60,
        'prefetch_mode': 'cuda',
        'num_prefetch_queue': 1,
    }
    gan_options['datasets']['val'] |= {'padding': 'replicate', 'num_frame': 5, 'pin_memory': False}
    gan_options['datasets']['val_2'] = {**gan_options['datasets']['val'], 'name': 'V2'}
    gan_options['network_g'] |= {'num_in_ch': 1, 'num_out_ch': 1, 'groups': 1, 'tail_conv': True, 'init_std': 0.01}
    gan_options['network_d'] |= {'num_in_ch': 1, 'negative_slope': 0.2}
    gan_options['path'] |= {
        'pretrain_network_d': None,
        'param_key_g': 'params',
        'strict_load_g': True,
        'strict_load_d': True,
        'resume_state': None,
        'ignore_resume_networks': None,
    }
    gan_options['train'] |= {
        'warmup_iter': -1,
        'ema_decay': 0.999,
        'freeze_bn': False,
        'sync_bn': False,
        'multi_scale': False,
        'lr_mul': {'body': 0.5},
        'train_only': {'reconstruction': 5},
        'amp': 'bf16',
        'accumulate': 2,
        'clip_grad_norm': 0.5,
        'compile': False,
        'channels_last': True,
        'max_skipped_steps': 10,
        'net_d_iters': 1,
        'net_d_init_iters': 0,
        'perceptual_opt': {'type': 'PerceptualLoss', 'layer_weights': {'conv5_4': 1}, 'criterion': 'l1'},
    }
    gan_options['train']['optim_g'] |= {'betas': [0.9, 0.99], 'weight_decay': 0, 'amsgrad': False}
    gan_options['train']['pixel_opt'] |= {'loss_weight': 1, 'reduction': 'mean'}
    gan_options['val'] |= {'pad_multiple': 4, 'self_ensemble': False, 'suffix': None, 'protocol': 'vrt-matlab'}
    gan_options['val']['metrics']['psnr'] |= {'test_y_channel': False, 'better': 'higher'}
    gan_options['logger'] |= {'max_keep_ckpts': 3, 'wandb': {'project': None, 'resume_id': None}}
    gan_options |= {'find_unused_parameters': False}
    gan_options['dist_params'] = {'backend': 'nccl', 'port': 29500, 'timeout': 600}
    return gan_options
