# DBLRGAN for the demo: the setting of options/demo_DBLRGAN.yml. Starts from the demo's DBLRNet.
#   python -m dblr_plugin.mmengine.train options/mmengine/demo_DBLRGAN.py
_base_ = ['_base_/runtime.py', '_base_/demo.py', '_base_/dblrgan.py']

model = dict(
    generator=dict(num_feat=16, num_block=6, input_skip=True),
    discriminator=dict(num_feat=16, num_fc=128, init_std=None),
)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=2e-4)), discriminator=dict(optimizer=dict(lr=2e-4)))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', by_epoch=False, T_max=300, eta_min=1e-6)
train_cfg = dict(max_iters=300, val_interval=160)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=160))
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')  # for several processes
load_from = 'work_dirs/demo_DBLRNet/iter_1000.pth'
