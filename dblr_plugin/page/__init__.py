"""A local web page on which to drop a clip and compare it with its restoration."""
