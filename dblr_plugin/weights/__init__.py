"""Reads and writes checkpoints, and provides the bundled weights."""
