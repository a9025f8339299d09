"""Metrics by name, named protocols that score frames with them, and the scores of validations."""
