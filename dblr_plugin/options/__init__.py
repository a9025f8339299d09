"""Option files: their schema, and checks before anything is built."""
