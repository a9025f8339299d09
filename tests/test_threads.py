import threading
import time
from itertools import islice

import pytest

from dblr_plugin.threads import AHEAD, BackgroundWriter, prefetch


class TestAhead:
    def test_items_come_in_order(self):
        assert list(prefetch(range(20))) == list(range(20))
        assert list(prefetch([])) == []

    def test_no_more_are_taken_than_may_wait(self):
        taken = []
        items = prefetch(taken.append(i) or i for i in range(100))
        for _ in range(19):
            next(items)
        items.close()  # waits for what was begun
        assert len(taken) == 19 + AHEAD

    def test_what_raises_there_is_raised_here_after_what_was_before(self):
        def broken():
            yield from range(3)
            raise OSError('frame 3')

        items = prefetch(broken())
        assert list(islice(items, 3)) == [0, 1, 2]
        with pytest.raises(OSError, match='frame 3'):
            next(items)


class TestBehind:
    def test_calls_are_made_in_order_elsewhere_and_are_done_at_the_end(self):
        seen = []
        with BackgroundWriter(lambda *args: seen.append((threading.get_ident(), *args)), 2) as call:
            for i in range(10):
                call(i, 'x')
        assert [rest for _, *rest in seen] == [[i, 'x'] for i in range(10)]
        assert threading.get_ident() not in {thread for thread, *_ in seen}

    def test_errors_are_raised_here_and_nothing_is_written_after_them(self):
        seen = []

        def fail(i):
            if i == 1:
                time.sleep(0.02)  # meanwhile more calls are queued
                raise OSError(f'call {i}')
            seen.append(i)

        with pytest.raises(OSError, match='call 1'), BackgroundWriter(fail) as call:
            for i in range(10):
                call(i)
        assert seen == [0]

    def test_after_an_error_here_the_rest_is_still_done(self):
        seen = []
        with (
            pytest.raises(KeyError, match='here'),
            BackgroundWriter(lambda i: (time.sleep(0.01), seen.append(i))) as call,
        ):
            for i in range(3):
                call(i)
            raise KeyError('here')
        assert seen == [0, 1, 2]
