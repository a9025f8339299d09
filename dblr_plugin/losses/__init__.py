"""Losses that BasicSR lacks."""

from dblr_plugin.losses.minimax_gan_loss import MinimaxGANLoss

__all__ = ['MinimaxGANLoss']
