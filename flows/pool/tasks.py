"""Work of steps after inference as Ray tasks, one for each item, on the processors of the cluster's nodes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from flows.errors import PoolError
from flows.pool.actors import cause_of, short_reason
from tiling.storage.task_map import FEWEST_PIXELS

if TYPE_CHECKING:
    from tiling.storage.task_map import TaskMap

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 3
WAIT_SECONDS, SOON_SECONDS = 1.0, 0.05


class Tasks:
    """Tasks of all who work on finished masks with one pool: as many side by side as its cluster has processors.

    Args:
        resources: tells what the cluster has.
        on_wait: is called at least every second of waiting; what it raises ends all that wait.
    """

    def __init__(self, resources: Callable[[], Mapping[str, float]], on_wait: Callable[[], None]) -> None:
        self._resources, self._on_wait = resources, on_wait
        self._making = threading.Lock()
        self._made: threading.Semaphore | None = None

    @property
    def processors(self) -> int:
        """Processors of the cluster, at least one."""
        return max(1, int(self._resources().get("CPU", 1)))

    def of_mask(self, pixels: int) -> TaskMap | None:
        """A map of work on a mask of so many pixels as tasks; None where it is done sooner without."""
        return self._in_tasks if pixels >= FEWEST_PIXELS else None

    def _in_tasks(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return as_they_end(work, items, room=self._room, on_wait=self._on_wait)

    @property
    def _room(self) -> threading.Semaphore:
        with self._making:
            if self._made is None:
                self._made = threading.Semaphore(self.processors)
            return self._made


@ray.remote(num_cpus=0, scheduling_strategy="SPREAD")
def _done(work: Callable[[Any], Any], item: Any) -> Any:
    """Idle tile actors hold the processors that this takes: it asks Ray for none of its own."""
    return work(item)


def as_they_end(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    room: threading.Semaphore,
    on_wait: Callable[[], None],
    retries: int = RETRIES,
) -> Generator[Result]:
    """Results of work on items as they end; a task whose worker dies is done again by another.

    What one task raises is raised when the others have ended, so that it keeps none of them from its result.

    Args:
        work: pickles, and may be done twice.
        items: to work on.
        room: for tasks of all callers that run side by side.
        on_wait: is called at least every second of waiting; what it raises ends all.
        retries: of a task whose worker dies.

    Raises:
        PoolError: the workers of one task died again and again. Else what the work raises.
    """
    shared, coming, running = ray.put(work), deque(items), list[Any]()
    task = _done.options(max_retries=retries)
    failures: list[Exception] = []
    try:
        while coming or running:
            # One that has a task under way waits for that, not for others' tasks.
            while coming and room.acquire(timeout=0 if running else WAIT_SECONDS):
                running.append(task.remote(shared, coming.popleft()))
            on_wait()
            # A place that another caller's task leaves is taken soon.
            timeout = SOON_SECONDS if coming else WAIT_SECONDS
            for reference in ray.wait(running, timeout=timeout)[0] if running else ():
                running.remove(reference)
                room.release()
                try:
                    yield ray.get(reference)
                except RayError as error:
                    failures.append(failure_of(error))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
            room.release()
    if failures:
        raise failures[0]


def failure_of(error: RayError, at: str = "") -> Exception:
    """The cause of an error that a task raised; of any other, that its workers died, `at` work of some kind."""
    if isinstance(error, RayTaskError):
        return cause_of(error)
    return PoolError(f"workers died again and again{at} ({short_reason(error)}); the same command resumes")
