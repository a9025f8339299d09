"""What a training run needs beside its model: steps, numerics, checkpoints, resuming, warnings."""
