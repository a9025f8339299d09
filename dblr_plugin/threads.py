"""Runs work in threads: prefetching items, writing results, and many items at once with progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

__all__ = ['AHEAD', 'DISK_THREADS', 'BackgroundWriter', 'parallel', 'prefetch']

Item = TypeVar('Item')
Result = TypeVar('Result')

#: Items that wait: enough to even out slow ones, and not much memory.
AHEAD = 4
# file operations wait for a network disk most of the time: more threads than cores
DISK_THREADS = 16
_END: Any = object()


def prefetch(items: Iterable[Item], number: int = AHEAD) -> Iterator[Item]:
    """Takes items in a thread of their own, so many ahead; what raises there is raised here."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        futures = deque(thread.submit(next, iterator, _END) for _ in range(number))
        while (item := futures.popleft().result()) is not _END:
            futures.append(thread.submit(next, iterator, _END))
            yield item


class BackgroundWriter:
    """Calls a function in a thread of its own, in order; an error there is raised at one of the next calls, or after.

    Args:
        function: What to call.
        number: Calls that may wait.
    """

    def __init__(self, function: Callable[..., object], number: int = AHEAD) -> None:
        self.function = function
        self.number = number
        self.thread = ThreadPoolExecutor(1)
        self.futures: deque[Future] = deque()

    def __enter__(self) -> BackgroundWriter:
        return self

    def __call__(self, *args: Any) -> None:
        """Hands a call over; waits when too many are."""
        self.futures.append(self.thread.submit(self.function, *args))
        if len(self.futures) > self.number:
            self.futures.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # after an error, what was handed over is still done
        self.thread.shutdown()
        for future in self.futures:
            if kind is None:
                future.result()


def parallel(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    total: int,
    label: str,
    unit: str = 'file',
    progress: bool = True,
) -> Iterator[Result]:
    """Yields ``function(item)`` in the items' order, with a progress bar that shows rate and remaining time.

    Items are taken when there is a thread for them soon, so they may be large. The first error, Ctrl-C included, stops
    everything that has not begun.
    """
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        with tqdm(total=total, desc=label, unit=unit, disable=not progress) as bar:
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
