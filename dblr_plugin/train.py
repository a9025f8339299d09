"""``python -m dblr_plugin.train -opt F``: BasicSR's trainer, with the working directory as its root."""

from __future__ import annotations

import os

from basicsr.train import train_pipeline

__all__ = ['main']


def main() -> None:
    """Trains with the arguments in ``sys.argv`` (BasicSR's)."""
    train_pipeline(os.getcwd())


if __name__ == '__main__':
    main()
