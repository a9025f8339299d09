"""What measurements share: timing in rounds, memory, operations, where a report is from."""
