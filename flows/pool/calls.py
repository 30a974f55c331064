"""Calls of actors in flight: attempts at tiles, one or several in a call, and what a call gives of each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import ray
from ray.exceptions import RayTaskError

from flows.pool.actors import cause_of
from flows.pool.scheduler import Attempt, Scheduler, TileOutcome
from flows.worker.result import TileResult

Calls = dict[Any, list[Attempt]]
"""Attempts by the reference to the result of the call that makes them, all on one worker."""


def results_of(call: list[Attempt], reference: Any) -> list[TileResult | Exception]:
    """Results of a call's tiles, in order; fewer than it was given where it came no further.

    Raises:
        RayError: its worker is gone.
    """
    try:
        found = ray.get(reference)
    except RayTaskError as error:
        return [cause_of(error)]  # of the first: what later ones raise ends their call before
    return cast("list[TileResult | Exception]", [found] if len(call) == 1 else found)


def outcomes_of(
    call: list[Attempt], results: list[TileResult | Exception], scheduler: Scheduler
) -> Iterator[TileOutcome]:
    """Outcomes of a call's tiles; those that it came not to are tried again by themselves."""
    now = time.monotonic()
    for attempt, found in zip(call, results, strict=False):
        cause = found if isinstance(found, Exception) else None
        failed = TileResult(attempt.index, None, 0, {}, f"{type(cause).__name__}: {cause}")
        result = found if isinstance(found, TileResult) else failed
        ended = scheduler.end(attempt, result, now)
        if ended is not None:
            yield replace(ended, fatal_error=cause)
    for attempt in call[len(results) :]:
        scheduler.give_back(attempt, now)
