"""Video restoration: frames in, restored frames out."""
