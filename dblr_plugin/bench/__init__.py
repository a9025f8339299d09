"""Measurements that others can repeat: what is compared, on what, how, and all of the result, losses too."""
