"""Option files: what they may hold, settings from the command line, and what cannot work, before anything is built."""
