"""Map of reading over parts of an image, in other processes that reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from tiling.storage.task_map import FEWEST_PIXELS

if TYPE_CHECKING:
    from tiling.source import ImageSource

Part = TypeVar("Part")
Result = TypeVar("Result")

PART_PIXELS = FEWEST_PIXELS
"""Read for one part: what opening the image once more costs is little beside."""
LEAST_PIXELS = 1 << 22
"""Read at all: fewer are read in less time than it takes to ask for them."""


class PartMap(Protocol):
    """A map of what is read of one image, part by part; results come as they end.

    The reading and the parts pickle, and a part may be read again where a process dies. Each process opens the image
    for itself, and gives nothing that it read of another content.
    """

    def __call__(
        self, reading: Callable[[ImageSource, Part], Result], parts: Iterable[Part], /
    ) -> Iterator[Result]: ...
