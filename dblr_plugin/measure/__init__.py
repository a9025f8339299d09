"""Shared measurement tools: timing in rounds, memory, operations, provenance of reports."""
