"""Reads and writes checkpoints, and provides the shipped weights."""

from dblr_plugin.weights.checkpoint import FORMAT_VERSION, read_checkpoint, save_atomically
from dblr_plugin.weights.loading import SHIPPED, load_state_dict, load_weights, named_weights, shipped_weights

__all__ = [
    'FORMAT_VERSION', 'SHIPPED', 'load_state_dict', 'load_weights', 'named_weights', 'read_checkpoint',
    'save_atomically', 'shipped_weights',
]  # fmt: skip
