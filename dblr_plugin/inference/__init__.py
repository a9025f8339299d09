"""The old place of :mod:`dblr_plugin.restore`; it goes with the next release."""
