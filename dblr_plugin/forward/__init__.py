"""Running a network: folded, in tiles, by the quickest backend and precision of this machine.

Validation, testing and video inference all run networks through here, so what is measured is what users get.
"""
