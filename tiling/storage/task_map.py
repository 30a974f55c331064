"""Map of work over items in other processes, which reach the same storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

FEWEST_PIXELS = 1 << 26
"""Of an image or a mask from which on other processes are worth their start, or their asking."""


class TaskMap(Protocol):
    """A map whose work is done in other processes that reach the run and its image; results come as they end.

    Work and items pickle, and the work may be done again where a process dies.
    """

    def __call__(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]: ...
