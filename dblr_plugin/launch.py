"""``python -m dblr_plugin.launch``: torchrun with the same arguments, without its traceback at the end.

Where a process fails it has told why in one line, and torchrun adds some thirty of its own; so it does for a signal.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

__all__ = ['main']


def main() -> None:
    """Starts processes as ``sys.argv`` says (torchrun's arguments); the exit code is that of the first that failed."""
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    try:
        run.main()
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)  # negative for a signal
    except SignalException as stop:
        sys.exit(128 + stop.sigval)


if __name__ == '__main__':
    main()
