# The VideoDeblurring dataset (DVD, quantitative subset: 61 training and 10 test videos).
train_dataloader = dict(
    batch_size=4,  # published: 4 in all; on several GPUs divide it
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        type='VideoDeblurDataset',
        name='DVD',
        dataroot_gt='datasets/DVD/train/gt',  # or train_gt.lmdb (dblr prepare lmdb)
        dataroot_lq='datasets/DVD/train/lq',
        num_frame=5,
        gt_size=128,
        interval_list=[1],
        random_reverse=False,
        use_hflip=True,
        use_rot=False,  # published: flips only
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoDeblurTestDataset',
        name='DVD-test',
        dataroot_gt='datasets/DVD/test/gt',
        dataroot_lq='datasets/DVD/test/lq',
        num_frame=5,
        padding='replicate',  # unpublished: how the windows at a clip's ends are filled
    ),
)
# RGB, uint8, all frames, no crop, mean of clip means; `dblr evaluate --help` lists the protocols
val_evaluator = [dict(type='ProtocolScores', protocol='basicsr')]
val_cfg = dict(type='ValLoop')

test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type='TestLoop')
