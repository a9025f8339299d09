"""What option files may contain, settings from the command line, and checks before anything is built."""
