"""Weights in and out: one reading and one writing of them, whatever the file; and those that come with the package."""

from dblr_plugin.weights.checkpoint import read_checkpoint, save_atomically
from dblr_plugin.weights.loading import load_state_dict, load_weights, named_weights
from dblr_plugin.weights.shipped import SHIPPED, shipped_weights

__all__ = [
    'SHIPPED', 'load_state_dict', 'load_weights', 'named_weights', 'read_checkpoint', 'save_atomically',
    'shipped_weights',
]  # fmt: skip
