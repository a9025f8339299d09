"""Losses that BasicSR lacks."""

from dblr_plugin.losses.minimax_gan_loss import MinimaxGANLoss
from dblr_plugin.losses.psnr_loss import PSNRLoss

__all__ = ['MinimaxGANLoss', 'PSNRLoss']
