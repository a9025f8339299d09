# The demo's footage (python scripts/demo_clips.py makes it), in place of DVD; smaller networks, a shorter run.
_base_ = 'dvd.py'

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(
        name='demo',
        dataroot_gt='datasets/demo/train/gt',
        dataroot_lq='datasets/demo/train/lq',
        random_reverse=True,
        use_rot=True,  # a hundred windows in all: every symmetry helps
    ),
)
val_dataloader = dict(dataset=dict(name='demo', dataroot_gt='datasets/demo/val/gt', dataroot_lq='datasets/demo/val/lq'))
test_dataloader = val_dataloader
