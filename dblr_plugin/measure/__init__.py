"""What measurements share: timing in rounds, the machine operations, memory, LPIPS, warping error."""
