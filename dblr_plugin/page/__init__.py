"""A page on this computer, to drop a clip on and compare it with its restoration."""
