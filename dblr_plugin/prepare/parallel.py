"""Processes many items in threads, with progress and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

__all__ = ['DISK_THREADS', 'parallel']

# file operations wait for a network disk most of the time: more threads than cores
DISK_THREADS = 16

Item = TypeVar('Item')
Result = TypeVar('Result')


def parallel(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    total: int,
    label: str,
    unit: str = 'file',
) -> Iterator[Result]:
    """Yields ``function(item)`` in the items' order, with a progress bar that shows rate and remaining time.

    Items are taken when there is a thread for them soon, so they may be large. The first error, Ctrl-C included, stops
    everything that has not begun.
    """
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        with tqdm(total=total, desc=label, unit=unit) as bar:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
                    bar.update()
            while pending:
                yield pending.popleft().result()
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
