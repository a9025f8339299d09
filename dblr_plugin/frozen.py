"""Excludes everything imported so far from garbage collection; imported last by the fork server.

Forks share the server's memory until they write to it. Garbage collection writes to every object that it visits, and
would therefore copy all of it into each fork.
"""

import gc

gc.freeze()
