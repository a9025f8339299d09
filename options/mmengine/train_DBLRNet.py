# DBLRNet on DVD: the setting of options/train_DBLRNet.yml, which says what is published and what is not.
#   python -m dblr_plugin.mmengine.train options/mmengine/train_DBLRNet.py [--resume]
#   torchrun --nproc_per_node=4 -m dblr_plugin.mmengine.train options/mmengine/train_DBLRNet.py \
#       --cfg-options train_dataloader.batch_size=1 sync_bn=torch            on 4 GPUs, 4 in all
_base_ = ['_base_/runtime.py', '_base_/dvd.py', '_base_/dblrnet.py']
