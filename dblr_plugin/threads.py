"""Runs work in threads: prefetching items, writing results, and processing many items at once with progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

__all__ = ['AHEAD', 'DISK_THREADS', 'BackgroundWriter', 'parallel', 'prefetch']

Item = TypeVar('Item')
Result = TypeVar('Result')

#: Number of queued items: enough to even out slow ones, without using much memory.
AHEAD = 4
# file operations mostly wait for a network disk, hence more threads than cores
DISK_THREADS = 16
_END: Any = object()


def prefetch(items: Iterable[Item]) -> Generator[Item]:
    """Fetches items in a separate thread, ``AHEAD`` of them ahead; exceptions raised there are raised here.

    To stop early, close the generator: it returns once the thread has ended.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        futures = deque(thread.submit(next, iterator, _END) for _ in range(AHEAD))
        while (item := futures.popleft().result()) is not _END:
            futures.append(thread.submit(next, iterator, _END))
            yield item


class BackgroundWriter:
    """Calls a function in a separate thread, in order; an error there is raised by one of the next calls or on exit.

    After an error of the function, it is not called again: what is written has no gap.

    Args:
        function: The function to call.
        number: Maximum number of calls that may be queued.
    """

    def __init__(self, function: Callable[..., object], number: int = AHEAD) -> None:
        self.function = function
        self.number = number
        self.thread = ThreadPoolExecutor(1)
        self.futures: deque[Future] = deque()
        self.failed = False

    def __enter__(self) -> BackgroundWriter:
        return self

    def __call__(self, *args: Any) -> None:
        """Queues a call; waits if too many are queued."""
        self.futures.append(self.thread.submit(self._call, *args))
        if len(self.futures) > self.number:
            self.futures.popleft().result()

    def _call(self, *args: Any) -> None:
        if self.failed:
            return
        try:
            self.function(*args)
        except BaseException:
            self.failed = True
            raise

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # queued calls still run after an error of the block
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

    Items are only taken shortly before a thread is free for them, so they may be large. The first error, including
    Ctrl-C, cancels everything that has not begun.
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
