"""Networks: tensors in, tensors out."""

from dblr_plugin.archs.dblr_discriminator_arch import DBLRDiscriminator
from dblr_plugin.archs.dblrnet_arch import DBLRNet
from dblr_plugin.archs.dbn_arch import DBN
from dblr_plugin.archs.deepdeblur_arch import DeepDeblur
from dblr_plugin.archs.multi_scale_dblrnet_arch import MultiScaleDBLRNet
from dblr_plugin.archs.untrained_arch import BlurryInput, FourierBurstAccumulation

__all__ = [
    'DBN', 'BlurryInput', 'DBLRDiscriminator', 'DBLRNet', 'DeepDeblur', 'FourierBurstAccumulation', 'MultiScaleDBLRNet',
]  # fmt: skip
