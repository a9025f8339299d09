"""``python -m dblr_plugin.launch``: torchrun with the same arguments, but without its traceback at the end.

A failing process has already reported the reason in one line; torchrun would add about thirty lines, also on a signal.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

__all__ = ['main']


def main() -> None:
    """Starts processes from ``sys.argv`` (torchrun's arguments); exits with the code of the first one that failed."""
    for name in ('torch.distributed.elastic', 'torch.distributed.elastic.multiprocessing.errors'):  # has its own level
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        run.main()
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)  # negative for a signal
    except SignalException as stop:
        sys.exit(128 + stop.sigval)


if __name__ == '__main__':
    main()
