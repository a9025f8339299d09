"""Several methods on the same data under one protocol: figures, what they cost, and where all of it is from."""
