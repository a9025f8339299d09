"""``python -m dblr_plugin.test -opt F``: BasicSR's test program, with the working directory as its root."""

from __future__ import annotations

import os

from basicsr.test import test_pipeline

__all__ = ['main']


def main() -> None:
    """Tests with the arguments in ``sys.argv`` (BasicSR's)."""
    test_pipeline(os.getcwd())


if __name__ == '__main__':
    main()
