# DBLRGAN: DBLRNet against a discriminator, with an optimiser for each.
_base_ = 'dblrnet.py'

model = dict(
    type='DBLRGANModel',
    generator=dict(init_std=None),
    discriminator=dict(
        type='DBLRDiscriminator', num_in_ch=1, num_feat=64, num_fc=4096, init_std=0.01, negative_slope=0.2
    ),
    gan_loss=dict(type='MinimaxGANLoss', loss_weight=2e-4),  # alpha
    disc_steps=1,
    disc_init_steps=0,
)
optim_wrapper = dict(
    _delete_=True,
    constructor='MultiOptimWrapperConstructor',
    generator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99))),
    discriminator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99))),
)
