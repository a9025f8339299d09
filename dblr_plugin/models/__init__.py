"""The model classes registered with BasicSR."""

from dblr_plugin.models.dblrgan_model import DBLRGANModel
from dblr_plugin.models.video_deblur_model import VideoDeblurModel

__all__ = ['DBLRGANModel', 'VideoDeblurModel']
