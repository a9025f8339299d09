"""Converts datasets to the layout used for training and testing; validates them first, and is resumable."""
