"""Runs work in background threads: prefetching items, and writing results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ['AHEAD', 'BackgroundWriter', 'prefetch']

Item = TypeVar('Item')

#: Items that wait: enough to even out slow ones, and not much memory.
AHEAD = 4
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
