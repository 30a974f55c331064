"""Work on blocks of an image as Ray tasks, on the processors of the cluster's nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from flows.pool.tasks import RETRIES, failure_of

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH = 4
"""Blocks of a task at most: what it opens, it opens once for all of them."""
AHEAD = 2
"""Tasks that wait for a processor, so that none waits for the driver."""


@ray.remote(num_cpus=0, max_retries=RETRIES, scheduling_strategy="SPREAD")
def _worked_on(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Idle tile actors hold the processors that this takes: it asks Ray for none of its own."""
    return [work(item) for item in items]


def in_tasks(
    work: Callable[[Item], Result], items: Iterable[Item], *, at_once: int, on_wait: Callable[[], None]
) -> Iterator[tuple[Item, Result]]:
    """Items and what comes of each, in their order; a task whose worker dies is done again by another.

    Args:
        work: pickles, and may be done twice.
        items: to work on.
        at_once: tasks that run side by side.
        on_wait: is called every second of waiting; what it raises ends all.

    Raises:
        PoolError: the workers of one task died again and again. Else what the work raises.
    """
    blocks = [*items]
    shared, coming, batch_size = ray.put(work), iter(blocks), min(BATCH, -(-len(blocks) // at_once))
    waiting = deque[tuple[list[Item], Any]]()
    try:
        while True:
            while len(waiting) < at_once + AHEAD and (batch := list(islice(coming, batch_size))):
                waiting.append((batch, _worked_on.remote(shared, batch)))
            if not waiting:
                return
            done, reference = waiting[0]
            results = _result(reference, on_wait)
            waiting.popleft()
            yield from zip(done, results, strict=True)
    finally:
        for _, reference in waiting:
            ray.cancel(reference, force=True)


def _result(reference: Any, on_wait: Callable[[], None]) -> list[Any]:
    while not ray.wait([reference], timeout=1.0)[0]:
        on_wait()
    try:
        return ray.get(reference)
    except RayError as error:
        raise failure_of(error, " at work on blocks") from error
