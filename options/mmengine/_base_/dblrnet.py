# DBLRNet, its loss, optimiser and schedule, as published as far as it is known.
model = dict(
    type='VideoDeblurModel',
    generator=dict(
        type='DBLRNet',
        num_in_ch=1,  # Y of YCbCr
        num_out_ch=1,
        num_frame=5,
        num_feat=64,
        num_block=14,
        groups=1,
        input_skip=False,
        init_std=0.01,
    ),
    pixel_loss=dict(type='MSELoss', loss_weight=1.0, reduction='mean'),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99)))
param_scheduler = dict(type='MultiStepLR', by_epoch=False, milestones=[150000], gamma=0.1)
train_cfg = dict(type='ResumableTrainLoop', max_iters=200000, val_interval=5000)
