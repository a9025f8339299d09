# What all configs share: our classes, log, checkpoints, seed.
custom_imports = dict(imports=['dblr_plugin.mmengine'])

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5000, max_keep_ckpts=5),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='ComparisonImagesHook'),
    dict(type='StopAtInvalidLossHook'),
]
log_processor = dict(by_epoch=False)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # gloo is used where there is no GPU
)
# several processes begin each step with the first one's BatchNorm statistics, as in BasicSR's trainer
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
randomness = dict(seed=0)
load_from = None
resume = False
