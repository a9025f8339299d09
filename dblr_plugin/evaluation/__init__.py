"""Metrics by name, named protocols that score frames with them, and validation scores."""
