"""Option files: their schema, command-line settings, and checks before anything is built."""
