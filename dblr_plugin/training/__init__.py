"""What a training run needs beside its model: steps, checkpoints, resuming, signals, monitors."""
