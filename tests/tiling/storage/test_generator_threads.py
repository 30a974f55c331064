"""Generators with threads, given up before their end: nothing waits where waiting could last for ever."""

from __future__ import annotations

import threading
from collections.abc import Generator

from tiling.storage.generator_threads import GeneratorThreads


def numbers(may_end: threading.Event, began: threading.Event) -> Generator[int]:
    def slow() -> int:
        began.set()
        assert may_end.wait(30)
        return 1

    with GeneratorThreads(1) as threads:
        yield 0
        first, second = threads.submit(slow), threads.submit(lambda: 2)
        yield from (1, 2)
        yield first.result() + second.result()


def test_one_that_is_given_up_waits_for_no_thread() -> None:
    may_end, began = threading.Event(), threading.Event()
    given_up = numbers(may_end, began)
    assert [next(given_up), next(given_up)] == [0, 1]
    assert began.wait(30)
    given_up.close()  # as the garbage collector does; with a thread that waits, this would last
    assert not may_end.is_set()
    may_end.set()


def test_one_that_is_used_up_has_all_results() -> None:
    may_end, began = threading.Event(), threading.Event()
    may_end.set()
    assert list(numbers(may_end, began)) == [0, 1, 2, 3]
