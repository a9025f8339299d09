# DBLRGAN on DVD: the setting of options/train_DBLRGAN.yml. Starts from a trained DBLRNet, of either trainer.
#   python -m dblr_plugin.mmengine.train options/mmengine/train_DBLRGAN.py [--resume]
#   torchrun --nproc_per_node=4 -m dblr_plugin.mmengine.train options/mmengine/train_DBLRGAN.py \
#       --cfg-options train_dataloader.batch_size=1 sync_bn=torch            on 4 GPUs, 4 in all
_base_ = ['_base_/runtime.py', '_base_/dvd.py', '_base_/dblrgan.py']

model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')  # for several processes
load_from = 'work_dirs/train_DBLRNet/iter_200000.pth'  # or experiments/DBLRNet/models/net_g_latest.pth
