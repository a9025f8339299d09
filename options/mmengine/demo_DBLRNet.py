# DBLRNet for the demo: the setting of options/demo_DBLRNet.yml; a few minutes on two CPU cores.
#   python -m dblr_plugin.mmengine.train options/mmengine/demo_DBLRNet.py
_base_ = ['_base_/runtime.py', '_base_/demo.py', '_base_/dblrnet.py']

model = dict(generator=dict(num_feat=16, num_block=6, input_skip=True, init_std=None))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [  # in place of the base's
    dict(type='LinearLR', by_epoch=False, start_factor=1 / 20, begin=0, end=20),  # 1/20, 2/20 ... of the rate
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=1000, eta_min=1e-6),
]
train_cfg = dict(max_iters=1000, val_interval=350)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=350))
