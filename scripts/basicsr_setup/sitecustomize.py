"""Lets Python 3.13 and newer run basicsr 1.4.2's setup.py: put this folder on PYTHONPATH while pip builds it.

That file executes ``basicsr/version.py`` in a function and reads ``locals()['__version__']``. Since Python 3.13
(PEP 667) ``exec`` defines names in a copy of a function's locals, and the build fails with ``KeyError: '__version__'``.
Here ``exec`` defines them in the locals themselves, as in older Pythons, which are left unchanged.
"""

import builtins
import sys
from typing import Any

if sys.version_info >= (3, 13):
    _exec = builtins.exec

    def exec_in_callers_locals(*args: Any, **options: Any) -> None:
        """Like ``exec``, but with only a source, defines its names where the caller's ``locals()`` finds them."""
        if len(args) == 1 and not options:
            caller = sys._getframe(1)
            args = (*args, caller.f_globals, caller.f_locals)
        _exec(*args, **options)

    builtins.exec = exec_in_callers_locals
