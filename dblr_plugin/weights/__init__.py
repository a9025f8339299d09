"""Reads and writes checkpoints, and provides the shipped weights."""

from dblr_plugin.weights.checkpoint import FORMAT_VERSION, read_checkpoint, save_atomically
from dblr_plugin.weights.loading import SHIPPED, find_weights, load_state_dict, load_weights, named_weights

__all__ = [
    'FORMAT_VERSION', 'SHIPPED', 'find_weights', 'load_state_dict', 'load_weights', 'named_weights',
    'read_checkpoint', 'save_atomically',
]  # fmt: skip
