"""Restoring videos: frames in, restored frames out."""
