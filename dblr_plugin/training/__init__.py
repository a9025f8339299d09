"""Parts of a training run besides the model: steps, checkpoints, resuming, signals, monitors."""
