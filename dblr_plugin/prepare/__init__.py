"""Brings data sets into the one layout that training and testing read; checked first, and resumable."""
