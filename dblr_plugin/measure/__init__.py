"""What measurements share: turns, the machine and its limits, operations, memory, perceptual and temporal scores."""
