"""Networks: tensors in, tensors out."""

from dblr_plugin.archs.dblr_discriminator_arch import DBLRDiscriminator
from dblr_plugin.archs.dblrnet_arch import DBLRNet, MiddleFrame

__all__ = ['DBLRDiscriminator', 'DBLRNet', 'MiddleFrame']
