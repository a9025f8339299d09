"""Imported last by the server of forks: its forks then share what it has imported, which garbage collection would copy.

Collecting garbage writes into every object that it looks at, and so gives each fork its own copy.
"""

import gc

gc.freeze()
