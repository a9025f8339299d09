"""What measurements run under: one thread, where threads are not what is measured, and nobody talking."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import cv2
import torch

__all__ = ['single_threaded', 'without_messages']


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Gives PyTorch and OpenCV one thread each."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """Keeps log lines out of the tables; warnings get through."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
