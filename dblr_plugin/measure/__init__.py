"""What measurements share: timing in rounds, the machine and its limits, operations, memory, LPIPS, warping error."""
