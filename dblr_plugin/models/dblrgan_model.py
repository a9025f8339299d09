"""DBLRGAN: DBLRNet trained against a discriminator."""

from __future__ import annotations

from basicsr.models.srgan_model import SRGANModel
from basicsr.utils.registry import MODEL_REGISTRY

from dblr_plugin.models.video_deblur_model import VideoDeblurModel

__all__ = ['DBLRGANModel']


@MODEL_REGISTRY.register()
class DBLRGANModel(VideoDeblurModel, SRGANModel):
    """Content loss plus alpha times the adversarial loss, G and D updated in turn on the same batch.

    The steps are BasicSR's ``SRGANModel``'s, on windows and in the network's colour: D sees what G restores (Y for
    a one-channel network). ``train.pixel_opt`` is the content loss, ``train.gan_opt`` the adversarial one with alpha
    as its ``loss_weight``; ``path.pretrain_network_g`` starts it from a trained DBLRNet.
    """
