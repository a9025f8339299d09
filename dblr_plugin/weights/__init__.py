"""Reads and writes checkpoints, and provides the shipped weights."""
